"""Pipelines in the layouts of real hub repositories, made small, draw the plain one's picture."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sd3.redenoising import generate_initial_images
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Sampling
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS
from hoi_assets_tests.parity.sentencepiece_file import write_sentencepiece

UNET = "unet/diffusion_pytorch_model"
SAMPLING = Sampling(width=64, height=64, num_inference_steps=2, batch_size=1)


def sdxl_picture(folder: Path) -> bytes:
    loaded = load_sdxl(ModelRef(source=str(folder)))
    image = next(generate_images(loaded, [make_image_spec(SAMPLING, PROMPTS[0], 1, 0)], 1)).image
    assert image is not None
    return image.tobytes()


def sd3_picture(folder: Path) -> bytes:
    loaded = load_sd3(ModelRef(source=str(folder)))
    row = initial_image_spec(PROMPTS[0], 1, 0, 1, 2, 4.5, 64, 64)
    image = next(generate_initial_images(loaded, [row], 1)).image
    assert image is not None
    return image.tobytes()


@pytest.fixture
def copy(sdxl_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sdxl_folder, tmp_path / "copy"))


def shard(file: Path, shards: int = 3) -> list[Path]:
    """Split a weight file as large ones are on the hub: numbered shards and an index."""
    weights = load_file(file)
    names = sorted(weights)
    stem = file.name.removesuffix(".safetensors")
    paths, places = [], {}
    for number in range(shards):
        path = file.with_name(f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors")
        own = names[number::shards]
        save_file({name: weights[name] for name in own}, path, metadata={"format": "pt"})
        places |= dict.fromkeys(own, path.name)
        paths.append(path)
    total = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index), encoding="utf-8")
    file.unlink()
    return paths


def test_sharded_weights_draw_the_same_picture_and_a_lost_shard_is_refused(
    sdxl_folder: Path, copy: Path
) -> None:
    shards = shard(copy / f"{UNET}.safetensors")
    shard(copy / "text_encoder_2" / "model.safetensors")
    assert sdxl_picture(copy) == sdxl_picture(sdxl_folder)
    shards[1].unlink()
    with pytest.raises(HoiError, match="unet"):
        sdxl_picture(copy)


def test_files_beside_the_plain_ones_do_not_matter(sdxl_folder: Path, copy: Path) -> None:
    """As in SDXL's repository: half-precision variants, ONNX and single-file checkpoints beside
    the plain weights."""
    for part in ("unet", "vae"):
        plain = copy / part / "diffusion_pytorch_model.safetensors"
        half = {name: value.half() for name, value in load_file(plain).items()}
        save_file(half, plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (copy / "unet" / "model.onnx").write_bytes(b"not read")
    save_file({"first": torch.zeros(1)}, copy / "sd_xl_base_1.0.safetensors")
    assert sdxl_picture(copy) == sdxl_picture(sdxl_folder)


def test_pickled_pipeline_weights_are_refused_by_name(copy: Path) -> None:
    plain = copy / f"{UNET}.safetensors"
    torch.save(load_file(plain), copy / f"{UNET}.bin")
    plain.unlink()
    with pytest.raises(HoiError, match=r"diffusion_pytorch_model\.safetensors"):
        sdxl_picture(copy)


@pytest.fixture
def with_t5(tmp_path: Path) -> Path:
    make_sd3(tmp_path / "sd3", with_t5=True)
    return tmp_path / "sd3"


def test_t5s_sentencepiece_model_lies_beside_its_json_as_released(with_t5: Path) -> None:
    """The JSON is what is read: the model alone would need the library sentencepiece."""
    from transformers.convert_slow_tokenizer import import_protobuf

    wanted = sd3_picture(with_t5)
    found = json.loads((with_t5 / "tokenizer_3" / "tokenizer.json").read_text("utf-8"))
    # The tokenizer adds T5's 100 extra tokens itself.
    pieces = [one for one in found["model"]["vocab"] if not one[0].startswith("<extra_id")]
    both = Path(shutil.copytree(with_t5, with_t5.parent / "both"))
    file = both / "tokenizer_3" / "spiece.model"
    write_sentencepiece(file, pieces)
    read = import_protobuf().ModelProto.FromString(file.read_bytes())
    assert [one.piece for one in read.pieces] == [piece for piece, _ in pieces]
    assert sd3_picture(both) == wanted
    (both / "tokenizer_3" / "tokenizer.json").unlink()
    with pytest.raises(HoiError, match=r"missing: .*tokenizer_3/tokenizer\.json"):
        sd3_picture(both)


def test_sharded_t5_draws_the_same_picture(with_t5: Path) -> None:
    wanted = sd3_picture(with_t5)
    copy = Path(shutil.copytree(with_t5, with_t5.parent / "copy"))
    shard(copy / "text_encoder_3" / "model.safetensors", 2)
    assert sd3_picture(copy) == wanted
