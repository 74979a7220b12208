"""Small models in the layouts of the hub's repositories, one for each that a full profile names."""

from pathlib import Path

from hoi_assets_tests.engines.small_judges import make_clip, make_image_reward, make_vilt
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.engines.test_blip_vqa import make_blip_vqa


def make_hub_models(folder: Path) -> dict[str, str]:
    """Make all of them below `folder`; returns the folders by the names under `models`."""
    makers = {
        "base": make_sdxl,
        "verifier": make_vilt,
        "clip": make_clip,
        "image_reward": make_image_reward,
        "blip_vqa": make_blip_vqa,
    }
    for name, make in makers.items():
        make(folder / name)
    make_sd3(folder / "benchmark", with_t5=True)
    return {name: str(folder / name) for name in (*makers, "benchmark")}
