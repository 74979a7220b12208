"""Promises about `tf32` and `torch_compile`: off unless set, in keys where set, and used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hoi_assets.engines.image_spec import ImageSpec, image_key
from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import LoadedSD3, load_sd3
from hoi_assets.engines.sd3.redenoising import generate_initial_images
from hoi_assets.engines.sdxl.img2img import renoise
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.settings import ModelRef, Models, Sampling
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS, picture


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd3"
    make_sd3(folder)
    return folder


def test_options_are_in_the_keys_of_images_only_where_they_are_set(sd3_folder: Path) -> None:
    plain = ModelRef(source=str(sd3_folder))
    off = ModelRef(source=str(sd3_folder), tf32=False, torch_compile=False)
    row = initial_image_spec("a ball", 0, 0, 1)
    keys = {
        image_key(row, model_digest(plain.model_copy(update=changes)))
        for changes in ({}, {"tf32": True}, {"torch_compile": True})
    }
    assert len(keys) == 3 and image_key(row, model_digest(off)) in keys
    assert model_digest(off) == model_digest(plain)


def test_tf32_holds_while_a_model_draws_and_not_afterwards(sdxl_folder: Path) -> None:
    before = torch.get_float32_matmul_precision()
    sampling = Sampling(width=64, height=64, num_inference_steps=2, batch_size=1)
    row = make_image_spec(sampling, PROMPTS[0], 0, 0)
    for tf32, wanted in ((True, "high"), (False, "highest")):
        loaded = load_sdxl(ModelRef(source=str(sdxl_folder), tf32=tf32))
        loaded._embeddings.clear()
        seen: set[tuple[str, str]] = set()

        def watch(part: torch.nn.Module, _: Any, seen: set[tuple[str, str]] = seen) -> None:
            seen.add((type(part).__name__, torch.get_float32_matmul_precision()))

        parts = (loaded.pipe.unet, loaded.pipe.vae.decoder, loaded.pipe.text_encoder)
        hooks = [part.register_forward_pre_hook(watch) for part in parts]
        list(generate_images(loaded, [row], 1))
        list(renoise(loaded, [picture("red")], PROMPTS[:1], (1,), 0.6, sampling, 1))
        for hook in hooks:
            hook.remove()
        assert {name for name, _ in seen} == {"UNet2DConditionModel", "Decoder", "CLIPTextModel"}
        assert {precision for _, precision in seen} == {wanted}
        assert torch.get_float32_matmul_precision() == before


def test_denoiser_is_compiled_for_each_shape_of_its_own(sd3_folder: Path) -> None:
    """Captured as always, and run without code generation, which takes minutes on a CPU.

    Tried by hand with Inductor (torch 2.13, 79 CPU-seconds): the pictures were those of the plain
    model within 2 of 255, and the first shape's came back bit for bit after the second's.
    """
    rows = [initial_image_spec(PROMPTS[n], n, n, 2, 3, 4.5, 64, 64) for n in range(2)]
    plain = _drawn(load_sd3(ModelRef(source=str(sd3_folder))), rows)
    compiled = load_sd3(ModelRef(source=str(sd3_folder), torch_compile=True))
    counters = torch._dynamo.utils.counters["stats"]
    counters.clear()
    torch.compiler.set_default_backend("eager")
    try:
        first = _drawn(compiled, rows)
        of_two = counters["unique_graphs"]
        # Another shape has kernels of its own, and leaves those of the first alone.
        _drawn(compiled, [rows[0]])
        of_both = counters["unique_graphs"]
        again = _drawn(compiled, rows)
    finally:
        torch.compiler.set_default_backend(None)
    assert 0 < of_two < of_both == counters["unique_graphs"]
    assert (again == first).all()
    assert np.abs(first.astype(int) - plain).max() <= 2


def _drawn(loaded: LoadedSD3, rows: list[ImageSpec]) -> np.ndarray:
    images = [one.image for one in generate_initial_images(loaded, rows, len(rows))]
    return np.stack([np.asarray(image) for image in images])


def test_options_are_refused_where_they_mean_nothing() -> None:
    names = ("base", "verifier", "clip", "image_reward", "benchmark")
    models = {name: {"source": "x"} for name in names}
    for name, option, owners in (
        ("base", "torch_compile", "benchmark"),
        ("clip", "tf32", "base and benchmark"),
    ):
        with pytest.raises(
            ValidationError, match=f"{name}: {option} is an option of {owners} only"
        ):
            Models.model_validate(models | {name: {"source": "x", option: True}})
    for other in ({"offload": "model"}, {"quantization": "nf4"}):
        with pytest.raises(ValidationError, match="goes with neither offload nor quantization"):
            ModelRef.model_validate({"source": "x", "torch_compile": True, **other})
