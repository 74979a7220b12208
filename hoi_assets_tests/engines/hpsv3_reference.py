"""Remakes `hpsv3_scores.json`: scores of a small random HPSv3 by the published package itself.

A tool for developers, not run in CI: it needs an environment of its own, with the library versions
that the package pins. From the repository's root:

    python3.11 -m venv hpsv3-env
    hpsv3-env/bin/pip install torch numpy pillow safetensors matplotlib tensorboard pandas rich \
        requests omegaconf fire transformers==4.45.2 trl==0.11.4 peft==0.13.2 accelerate==1.0.1 \
        datasets==3.0.2
    hpsv3-env/bin/pip install --no-deps hpsv3==1.0.0
    hpsv3-env/bin/python -m hoi_assets_tests.engines.hpsv3_reference

torchvision is imported by the package, but computes nothing for pictures that PIL opened: an empty
module stands in for it. The rest of the package and of its libraries is the real one.
"""

import json
import sys
import tempfile
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from hoi_assets_tests.engines import small_hpsv3

SCORES = Path(__file__).parent / "hpsv3_scores.json"


def stand_in_for_torchvision() -> None:
    """Make torchvision importable; nothing in it can be called."""

    def module(name: str, **members: Any) -> ModuleType:
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        vars(made).update(__path__=[], **members)
        sys.modules[name] = made
        return made

    functional = module("torchvision.transforms.functional")
    transforms = module(
        "torchvision.transforms", functional=functional, InterpolationMode=type("None_", (), {})
    )
    module("torchvision", transforms=transforms, io=module("torchvision.io"), __version__="0")


def published_scores(folder: Path) -> list[list[float]]:
    """Mu and log sigma of each picture, by the package's own inferencer in float32.

    All pictures are one batch, as its `reward` takes them: texts of several lengths are padded.
    """
    import torch
    import transformers  # noqa: F401  asks for torchvision before the stand-in is there

    stand_in_for_torchvision()
    import hpsv3
    from omegaconf import OmegaConf
    from safetensors.numpy import load_file, save_file

    base = folder / "base"
    small_hpsv3.make_hpsv3(folder / "hpsv3", base)
    checkpoint = folder / "hpsv3" / small_hpsv3.CHECKPOINT
    # The package loads the base model first: the same tensors with more rows, and no head.
    tensors = load_file(checkpoint)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        spare = tensors[name][: small_hpsv3.SPARE_ROWS - 1]
        tensors[name] = small_hpsv3.np.concatenate([tensors[name], spare])
    own = {name: one for name, one in tensors.items() if not name.startswith("rm_head.")}
    save_file(own, base / "model.safetensors", metadata={"format": "pt"})
    packaged = Path(hpsv3.__file__).parent / "config" / "HPSv3_7B.yaml"
    options = OmegaConf.load(packaged)
    options.update(
        model_name_or_path=str(base),
        torch_dtype="float32",
        bf16=False,
        disable_flash_attn2=True,
        output_dir=str(folder / "out"),
        report_to="none",
    )
    OmegaConf.save(options, folder / "HPSv3_7B.yaml")
    inferencer = hpsv3.HPSv3RewardInferencer(
        str(folder / "HPSv3_7B.yaml"), str(checkpoint), device="cpu"
    )
    with torch.inference_mode():
        found = inferencer.reward(small_hpsv3.pictures(), list(small_hpsv3.PROMPTS))
    return [[float(value) for value in row] for row in found]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scores = published_scores(Path(name))
    facts = {
        "recipe": small_hpsv3.recipe_digest(),
        "versions": {one: version(one) for one in ("hpsv3", "transformers", "torch", "pillow")},
        "mu_and_log_sigma": scores,
    }
    SCORES.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(SCORES.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
