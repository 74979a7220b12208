"""Promises of encoded training examples: on disk, a picture at a time, same bits."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hoi_assets.engines.sdxl import examples
from hoi_assets.engines.sdxl.examples import StoredPairs, encode, pair_digests
from hoi_assets.engines.sdxl.framing import Framing
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.lora import finetune_lora
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.hashing import digest_pixels
from hoi_assets.settings import FineTuning, ModelRef
from hoi_assets.store.versions import Store
from hoi_assets_tests.damage import damage
from hoi_assets_tests.engines.small_sdxl import picture

COLOURS = ("red", "blue", "green", "white", "black", "gray", "pink", "brown")
CONFIG = FineTuning(
    max_train_steps=2, train_batch_size=2, rank=2, validation_steps=1, min_train_rows=2
)


@pytest.fixture
def stored(tmp_path: Path) -> StoredPairs:
    store = Store(tmp_path / "home")
    rows = [
        (store.images.put(picture(colour, 64 + 8 * (n % 2))), f"a ball {n % 3}")
        for n, colour in enumerate(COLOURS)
    ]
    return StoredPairs(store.images, rows)


def test_examples_are_what_the_models_make_of_each_picture_and_caption(
    loaded: LoadedSDXL, stored: StoredPairs, tmp_path: Path
) -> None:
    found = encode(loaded, stored, tmp_path / "encoded", "key")
    assert len(found) == 8
    latents, time_ids, embeds, pooled = found.take([4, 0])
    for place, number in enumerate((4, 0)):
        image, caption = stored[number]
        pixels = loaded.pipe.image_processor.preprocess(image)
        own = loaded.pipe.vae.encode(pixels).latent_dist.mode().detach()
        own = own * loaded.pipe.vae.config.scaling_factor
        assert torch.equal(latents[place], own[0])
        assert latents[place].stride() == own[0].stride()
        assert torch.equal(embeds[place], loaded.encode(caption)[0][0])
        assert torch.equal(pooled[place], loaded.encode(caption)[1][0])
        assert time_ids[place].tolist() == [64, 64, 0, 0, 64, 64]
    assert found.take([1])[1].tolist() == [[72, 72, 0, 0, 64, 64]]


def test_one_picture_is_open_at_a_time(
    loaded: LoadedSDXL, stored: StoredPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    most = 0
    open_stored = stored._images.open

    def counting(pixels: str) -> Image.Image:
        nonlocal most
        image = open_stored(pixels)
        alive.append(weakref.ref(image))
        most = max(most, sum(one() is not None for one in alive))
        return image

    monkeypatch.setattr(stored._images, "open", counting)
    finetune_lora(
        loaded,
        stored[:6],
        stored[6:],
        CONFIG,
        tmp_path / "work",
        tmp_path / "lora",
        lambda line: None,
    )
    assert len(alive) == 8
    assert most <= 2  # the last one and the next


def test_stored_and_open_pictures_train_the_same_bytes(
    loaded: LoadedSDXL, stored: StoredPairs, tmp_path: Path
) -> None:
    assert pair_digests(stored) == [(digest_pixels(image), text) for image, text in stored]
    files = []
    for name, pairs in (("stored", stored), ("open", list(stored))):
        folder = tmp_path / name
        finetune_lora(
            loaded,
            pairs[:6],
            pairs[6:],
            CONFIG,
            folder / "work",
            folder / "lora",
            lambda line: None,
        )
        files.append((folder / "lora" / LORA_FILE).read_bytes())
    assert files[0] == files[1]


def test_what_is_encoded_is_read_again_and_made_anew_where_it_is_damaged(
    loaded: LoadedSDXL, stored: StoredPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoded"
    first = encode(loaded, stored, folder, "key").take(range(8))
    made: list[str] = []
    write = examples._write

    def counting(*arguments: Any) -> dict[str, Any]:
        made.append("written")
        return write(*arguments)

    monkeypatch.setattr(examples, "_write", counting)

    def again(key: str) -> bool:
        found = encode(loaded, stored, folder, key).take(range(8))
        return all(torch.equal(a, b) for a, b in zip(first, found, strict=True))

    assert again("key") and not made
    for name in ("latents-0.float32", "texts-00000000.safetensors", examples.MANIFEST):
        damage(folder / name)
        assert again("key") and made.pop()
    assert again("another key") and made.pop()


def test_many_captions_are_read_from_several_files(
    loaded: LoadedSDXL, stored: StoredPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "TEXTS_PER_FILE", 2)
    found = encode(loaded, stored, tmp_path / "encoded", "key")
    assert len(list((tmp_path / "encoded").glob("texts-*"))) == 2
    _, _, embeds, _ = found.take(range(8))
    for number in range(8):
        assert torch.equal(embeds[number], loaded.encode(stored[number][1])[0][0])


WIDE, TALL = (96, 64), (64, 100)  # width, height
FRAMED = [
    (picture("red"), "square"),
    (picture("blue").resize(WIDE), "wide"),
    (picture("green").resize(TALL), "tall"),
]
SIZES = ((64, 64), (64, 96), (96, 64))  # height, width


def test_pictures_are_encoded_in_the_bucket_nearest_in_aspect_ratio(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    found = encode(loaded, FRAMED, tmp_path, "key", Framing(SIZES))
    assert found.buckets == [[0], [1], [2]]
    ids = [[64, 64, 0, 0, 64, 64], [64, 96, 0, 0, 64, 96], [100, 64, 2, 0, 96, 64]]
    for number, size in enumerate(SIZES):
        latents, time_ids, *_ = found.take([number, number])
        assert latents.shape[2:] == (size[0] // 8, size[1] // 8)
        assert time_ids.tolist() == [ids[number]] * 2


def test_mirrored_pictures_lie_beside_the_others(loaded: LoadedSDXL, tmp_path: Path) -> None:
    image = Image.linear_gradient("L").rotate(90).resize((72, 64)).convert("RGB")
    found = encode(loaded, [(image, "a")], tmp_path, "key", Framing(((64, 64),), mirrored=True))
    latents, time_ids, *_ = found.take([0, 0], mirrored=[False, True])
    assert time_ids.tolist() == [[64, 72, 0, 4, 64, 64]] * 2
    square = image.crop((4, 0, 68, 64))
    for row, one in zip(
        latents, (square, square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), strict=True
    ):
        pixels = loaded.pipe.image_processor.preprocess(one)
        own = loaded.pipe.vae.encode(pixels).latent_dist.mode().detach()
        assert torch.equal(row, own[0] * loaded.pipe.vae.config.scaling_factor)
    assert not torch.equal(latents[0], latents[1])


def test_random_crops_follow_from_the_seed_and_enter_the_time_ids() -> None:
    image = picture("red", 128).resize((64, 128))

    def corners(seed: int) -> list[tuple[int, int]]:
        found = []
        for number in range(12):
            cut, (high, wide, top, left, *target) = Framing(((64, 64),), seed).cut(image, number)
            assert (high, wide, *target) == (128, 64, 64, 64)
            assert cut.tobytes() == image.crop((left, top, left + 64, top + 64)).tobytes()
            found.append((top, left))
        return found

    assert corners(1) == corners(1) != corners(2)
    assert all(0 <= top <= 64 and left == 0 for top, left in corners(1))
    assert len(set(corners(1))) > 6


def test_a_half_precision_base_encodes_pictures_in_float32(
    loaded: LoadedSDXL, sdxl_folder: Path, tmp_path: Path
) -> None:
    ref = ModelRef(source=str(sdxl_folder), dtype="bfloat16")
    half = load_sdxl(ref)
    found = encode(half, FRAMED, tmp_path / "half", "key")
    assert half.pipe.vae.dtype == torch.bfloat16
    half.pipe.vae.to(torch.float32)
    pixels = half.pipe.image_processor.preprocess(FRAMED[0][0])
    wanted = half.pipe.vae.encode(pixels).latent_dist.mode().detach()
    half.pipe.vae.to(torch.bfloat16)
    assert torch.equal(found.take([0])[0], wanted * half.pipe.vae.config.scaling_factor)
