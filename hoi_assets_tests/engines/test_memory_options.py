"""Promises about models larger than the memory of the device: offload, tiling, quantisation."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from hoi_assets.engines import model_cache
from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.diffusion_pipeline import MAX_CACHED_PROMPTS
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.model_cache import size_bytes
from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sd3.redenoising import generate_initial_images
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Models, Sampling
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS

Offload = Literal["none", "model", "sequential"]


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    model_cache.clear()
    yield
    model_cache.clear()
    model_cache.configure(None)


def _sd3_pictures(ref: ModelRef, device: str = "cpu") -> list[bytes]:
    rows: list[ImageSpec] = [
        initial_image_spec(PROMPTS[n], n, n, 2, 2, 4.5, 64, 64) for n in range(2)
    ]
    drawn = generate_initial_images(load_sd3(ref, device), rows, 2)
    return [one.image.tobytes() for one in drawn if one.image]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_changes_no_picture_and_no_digest(offload: Offload, tmp_path: Path) -> None:
    make_sd3(tmp_path / "sd3", with_t5=True)
    plain = ModelRef(source=str(tmp_path / "sd3"), max_sequence_length=8)
    waiting = plain.model_copy(update={"offload": offload})
    assert model_digest(waiting) == model_digest(plain)
    wanted = _sd3_pictures(plain)
    assert len(wanted) == 2 and _sd3_pictures(waiting) == wanted
    loaded = load_sd3(waiting)
    assert loaded.modules == () and size_bytes(loaded.modules) == 0
    if offload == "sequential":  # between two uses the weights are nowhere but in CPU memory
        assert all(one.is_meta for part in loaded.parts for one in part.parameters())
    else:
        assert all(hasattr(part, "_hf_hook") for part in loaded.parts)


def test_tiled_decoding_is_part_of_the_digest_and_draws_large_pictures(sdxl_folder: Path) -> None:
    plain = ModelRef(source=str(sdxl_folder))
    tiled = plain.model_copy(update={"vae_tiling": True})
    assert model_digest(tiled) != model_digest(plain)
    sampling = Sampling(width=128, height=128, num_inference_steps=1, batch_size=1)
    row = make_image_spec(sampling, PROMPTS[0], 0, 0)
    sizes = []
    for ref in (plain, tiled):
        loaded = load_sdxl(ref)
        hook = loaded.pipe.vae.decoder.register_forward_pre_hook(
            lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:]))
        )
        (drawn,) = generate_images(loaded, [row], 1)
        hook.remove()
        assert drawn.image is not None and drawn.image.size == (128, 128)
    assert sizes[0] == (16, 16) and len(sizes) > 2 and max(sizes[1:]) <= (8, 8)


def test_models_leave_where_less_memory_is_free_than_the_next_one_needs(
    clip_folder: Path, vilt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_clip(clip_folder)
    model_cache.configure(1 << 40)
    # Another process takes the memory: the budget alone would let both stay.
    monkeypatch.setattr(model_cache, "free_bytes", lambda device: 1)
    load_verifier(vilt_folder)
    assert [key.kind.split(",")[0] for key in model_cache.cached_keys()] == ["verifier"]


def test_embeddings_of_prompts_stay_within_their_bytes(
    sdxl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    one = sum(part.nbytes for part in loaded.encode("a ball"))
    monkeypatch.setattr("hoi_assets.engines.diffusion_pipeline.MAX_CACHED_BYTES", 5 * one)
    for number in range(20):
        loaded.encode(f"ball {number}")
    assert len(loaded._embeddings) == 5 < MAX_CACHED_PROMPTS
    assert loaded.encode("ball 19") is loaded.encode("ball 19")


def test_quantisation_without_its_package_names_the_remedy(tmp_path: Path) -> None:
    if find_spec("bitsandbytes") and torch.cuda.is_available():
        pytest.skip("bitsandbytes can be used")
    make_sd3(tmp_path / "sd3")
    ref = ModelRef(source=str(tmp_path / "sd3"), quantization="nf4")
    assert model_digest(ref) != model_digest(ModelRef(source=ref.source))
    installed = r"needs a GPU(.|\n)*quantization: none"
    absent = r"needs the package bitsandbytes(.|\n)*hoi-assets\[quant"
    with pytest.raises(HoiError, match=installed if find_spec("bitsandbytes") else absent):
        load_sd3(ref)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_transformer_and_t5_are_read_in_4_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    make_sd3(tmp_path / "sd3", with_t5=True)
    plain = ModelRef(source=str(tmp_path / "sd3"), max_sequence_length=8)
    ref = plain.model_copy(update={"quantization": "nf4"})
    pictures = _sd3_pictures(ref, "cuda")
    assert len(pictures) == 2 and pictures != _sd3_pictures(plain, "cuda")
    loaded = load_sd3(ref, "cuda")
    for part in (loaded.pipe.transformer, loaded.pipe.text_encoder_3):
        assert any(type(module).__name__ == "Linear4bit" for module in part.modules())
    assert not any(
        type(module).__name__ == "Linear4bit" for module in loaded.pipe.text_encoder.modules()
    )


def test_options_of_memory_are_refused_where_they_mean_nothing() -> None:
    plain = {"source": "x"}
    models = dict.fromkeys(("base", "verifier", "clip", "image_reward", "benchmark"), plain)
    with pytest.raises(ValidationError, match="base: quantization is an option of benchmark only"):
        Models.model_validate(models | {"base": plain | {"quantization": "nf4"}})
    with pytest.raises(ValidationError, match="verifier: offload is an option of benchmark only"):
        Models.model_validate(models | {"verifier": plain | {"offload": "model"}})
    with pytest.raises(ValidationError, match="Input should be 'none', 'model' or 'sequential'"):
        ModelRef(source="x", offload="disk")  # type: ignore[arg-type]
