"""Promises about weights in float16: their files' names, and a VAE that overflows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.sdxl.examples import encode
from hoi_assets.engines.sdxl.img2img import renoise, round_trip
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Sampling
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_judges import make_clip
from hoi_assets_tests.engines.small_sdxl import PROMPTS, make_sdxl, picture

VAE = "vae/diffusion_pytorch_model.safetensors"
BATCH = 4


def _renamed(folder: Path, *parts: str) -> None:
    for part in parts:
        (path,) = (folder / part).glob("*.safetensors")
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def test_weights_of_a_variant_are_read_where_a_part_has_them(tmp_path: Path) -> None:
    folder = tmp_path / "sdxl"
    make_sdxl(folder)
    plain = load_sdxl(ModelRef(source=str(folder)))
    plain.unload_adapters()  # the model cache may have had these weights
    _renamed(folder, "unet", "text_encoder")
    with pytest.raises(HoiError, match=r"unet holds .*\.fp16\.safetensors.*\n.*`variant`"):
        load_sdxl(ModelRef(source=str(folder)))
    variant = load_sdxl(ModelRef(source=str(folder), variant="fp16"))
    for name in ("unet", "text_encoder", "vae"):
        own = variant.pipe.components[name].state_dict()
        for key, value in plain.pipe.components[name].state_dict().items():
            assert torch.equal(own[key], value)


def test_a_judge_of_a_variant_is_read(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    plain = load_clip(folder)
    _renamed(folder, ".")
    with pytest.raises(HoiError, match=r"model\.safetensors is missing"):
        load_clip(folder)
    assert load_clip(ModelRef(source=str(folder), variant="fp16")).digest == plain.digest


def test_variant_is_part_of_the_digest_only_where_it_is_set(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    plain = ModelRef(source=str(tmp_path))
    assert model_digest(plain) == model_digest(plain.model_copy(update={"variant": None}))
    assert model_digest(plain) != model_digest(plain.model_copy(update={"variant": "fp16"}))


def _overflowing(folder: Path, force_upcast: bool) -> Path:
    """An SDXL whose VAE has activations beyond float16's range, like the published one's."""
    make_sdxl(folder)
    weights = load_file(folder / VAE)
    for name in ("encoder.conv_in.weight", "decoder.conv_in.weight"):
        weights[name] *= 2e5 / weights[name].abs().max() / 10
    save_file(weights, folder / VAE, {"format": "pt"})
    config = folder / "vae" / "config.json"
    text = config.read_text(encoding="utf-8")
    assert '"force_upcast": false' in text
    text = text.replace('"force_upcast": false', f'"force_upcast": {str(force_upcast).lower()}')
    config.write_text(text, encoding="utf-8")
    return folder


def test_a_vae_that_overflows_in_float16_is_upcast_wherever_it_is_used(tmp_path: Path) -> None:
    sampling = Sampling(width=64, height=64, num_inference_steps=2, batch_size=2)
    images = [picture("red"), picture("blue")]
    plain = load_sdxl(
        ModelRef(source=str(_overflowing(tmp_path / "plain", False)), dtype="float16")
    )
    with pytest.raises(HoiError, match="NaN or infinity"):
        list(round_trip(plain, images, sampling, BATCH))
    loaded = load_sdxl(
        ModelRef(source=str(_overflowing(tmp_path / "upcast", True)), dtype="float16")
    )
    assert len(list(round_trip(loaded, images, sampling, BATCH))) == 2
    assert len(list(renoise(loaded, images, PROMPTS[:2], (1, 2), 0.6, sampling, BATCH))) == 2
    pairs = [(image, "a ball") for image in images]
    encoded = encode(loaded, pairs, tmp_path / "encoded", "key").latents
    assert encoded and all(latents.isfinite().all() for latents in encoded)
    rows = [make_image_spec(sampling, PROMPTS[n], n, n) for n in range(2)]
    assert all(one.reason is None for one in generate_images(loaded, rows, 2))
    assert loaded.pipe.vae.dtype == torch.float16
