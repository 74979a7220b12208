"""Promises about the size of batches: found once, kept in the home, lowered where memory is short.

Memory is short by `room_for`: torch's own allocator refuses."""

import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from hoi_assets.detailscribe.benchmark_images import draw_benchmark_images, draw_variants, plain_row
from hoi_assets.engines import batch_sizes
from hoi_assets.engines.batch_sizes import FILE, KeptBatchSizes, settle_batch_size
from hoi_assets.engines.image_cache import CachedImage, get_or_generate_images
from hoi_assets.engines.image_spec import image_key
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sd3.redenoising import Redenoising
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Sampling, Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.short_memory import room_for
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS

WORK = ("draw", 64, 64)


@pytest.fixture
def settings(sdxl_folder: Path) -> Settings:
    tiny = load_settings("tiny")
    models = tiny.models.model_copy(update={"base": ModelRef(source=str(sdxl_folder))})
    sampling = Sampling(width=64, height=64, num_inference_steps=2, batch_size="auto")
    return tiny.model_copy(update={"models": models, "sampling": sampling})


def with_batch(settings: Settings, size: Any) -> Settings:
    sampling = settings.sampling.model_copy(update={"batch_size": size})
    return settings.model_copy(update={"sampling": sampling})


def draw(
    home: Path, settings: Settings, count: int, lines: list[str] | None = None
) -> list[CachedImage]:
    rows = [make_image_spec(settings.sampling, PROMPTS[n % 3], n, n) for n in range(count)]
    said = [] if lines is None else lines
    return get_or_generate_images(Store(home), settings, rows, "images", said.append)


def kept(home: Path) -> dict[str, Any]:
    (entry,) = json.loads((home / FILE).read_text(encoding="utf-8")).values()
    return dict(entry)


def test_auto_takes_the_largest_batch_that_fits_and_the_next_run_begins_with_it(
    loaded: LoadedSDXL, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, lines = tmp_path / "home", list[str]()
    with caplog.at_level(logging.WARNING), room_for(loaded.pipe.unet, 3):
        first = draw(home, settings, 3, lines)
        assert len(caplog.messages) == 1, "a batch of 4 was tried once"
        caplog.clear()
        more = draw(home, settings, 5, lines)
        assert not caplog.messages, "nothing is tried again"
    assert [one.as_record()["batch_size"] for one in more] == [2] * 5
    assert [one.as_record()["slot"] for one in more] == [n % 2 for n in range(5)]
    assert more[:3] == first
    found = kept(home)
    assert (found["work"], found["width"], found["height"]) == WORK
    assert (found["found"], found["limit"], found["offload"]) == (2, 2, "none")
    assert sum("batches of 2 (draw, 64x64 px), kept in" in line for line in lines) == 1
    # Neither key nor pixels tell where the size comes from.
    given = draw(tmp_path / "other", with_batch(settings, 2), 5)
    assert [(one.image_id, one.pixels) for one in given] == [
        (one.image_id, one.pixels) for one in more
    ]


def test_equal_weights_in_two_folders_share_a_size(
    loaded: LoadedSDXL, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model cache gives the one that was loaded first, whatever its folder was called."""
    copy = ModelRef(source=str(shutil.copytree(loaded.ref.source, tmp_path / "copy")))
    models = settings.models.model_copy(update={"base": copy})
    moved = settings.model_copy(update={"models": models})
    with caplog.at_level(logging.WARNING), room_for(loaded.pipe.unet, 3):
        draw(tmp_path / "home", settings, 3)
        draw(tmp_path / "home", moved, 4)
        assert len(caplog.messages) == 1, "nothing is tried again"
        draw(tmp_path / "moved", moved, 3)
        caplog.clear()
        draw(tmp_path / "moved", moved, 4)
        draw(tmp_path / "moved", settings, 5)
    assert not caplog.messages, "nothing is tried again"
    assert kept(tmp_path / "home") == kept(tmp_path / "moved") | {"model": loaded.ref.source}


def test_an_image_of_auto_is_drawn_again_from_its_row(
    loaded: LoadedSDXL, settings: Settings, tmp_path: Path
) -> None:
    with room_for(loaded.pipe.unet, 2):
        last = draw(tmp_path / "home", settings, 4)[-1]
    loaded.batch_limits = {}
    record = last.as_record()
    (again,) = generate_images(
        loaded, [replace(last.row, slot=record["slot"])], record["batch_size"]
    )
    assert again.image is not None and (record["slot"], record["batch_size"]) == (1, 2)
    assert Store(tmp_path / "home").images.put(again.image) == record["pixels"]


def test_what_does_not_fit_is_not_tried_by_another_run(
    loaded: LoadedSDXL, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, four = tmp_path / "home", with_batch(settings, 4)
    with caplog.at_level(logging.WARNING), room_for(loaded.pipe.unet, 2):
        draw(home, four, 4)
        assert len(caplog.messages) == 1
        loaded.batch_limits = {}  # as in a new process
        caplog.clear()
        drawn = draw(home, four, 8)
    assert not caplog.messages
    assert {one.as_record()["batch_size"] for one in drawn} == {2}
    assert kept(home)["limit"] == 2 and "found" not in kept(home)


def test_a_kept_size_is_lowered_where_memory_is_shorter_than_it_was(
    loaded: LoadedSDXL,
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_sizes, "MOST", 4)
    home = tmp_path / "home"
    first = draw(home, settings, 2)
    assert kept(home)["found"] == 4 == first[0].as_record()["batch_size"]
    with caplog.at_level(logging.WARNING), room_for(loaded.pipe.unet, 2):
        assert draw(home, settings, 4)[-1].as_record()["batch_size"] == 2
    assert len(caplog.messages) == 1 and kept(home)["limit"] == 2
    assert draw(home, settings, 6)[-1].as_record()["batch_size"] == 2


def test_benchmark_images_and_their_variants_share_the_size_that_was_found(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_sd3(tmp_path / "sd3")
    ref = ModelRef(source=str(tmp_path / "sd3"))
    small = {"width": 64, "height": 64, "num_inference_steps": 3, "switch_steps": (0, 1)}
    options = settings.redenoising.model_copy(update={**small, "batch_size": "auto"})
    models = settings.models.model_copy(update={"benchmark": ref})
    settings = settings.model_copy(update={"models": models, "redenoising": options})
    store, log = Store(tmp_path / "home"), lambda line: None
    rows = [plain_row(settings, f"row {n}", PROMPTS[n], n) for n in range(3)]
    loaded = load_sd3(ref)
    passes: list[int] = []
    with caplog.at_level(logging.WARNING), room_for(loaded.pipe.transformer, 2):
        drawn = draw_benchmark_images(store, settings, rows, "initial", log, keep_latents=True)
        assert len(caplog.messages) == 1
        hook = loaded.pipe.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
        wanted = [Redenoising(one.row, f"{one.row.prompt}, whole") for one in drawn]
        variants = draw_variants(store, settings, wanted, "variants", log)
        hook.remove()
    assert len(caplog.messages) == 1
    assert {one.as_record()["batch_size"] for one in drawn} == {2}
    assert {one.known.as_record()["batch_size"] for own in variants for one in own} == {2}
    # Two batches, of three steps from noise and two from the latents that were stored.
    assert len(passes) == 2 * (3 + 2)


def test_a_larger_batch_is_not_tried_where_the_estimate_exceeds_what_is_free(
    loaded: LoadedSDXL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, tried = 64 << 20, list[int]()

    def attempt(size: int) -> None:
        tried.append(size)
        held = torch.ones(size * image, dtype=torch.uint8)  # touched, so that it is really taken
        time.sleep(0.05)
        assert held.max() == 1

    monkeypatch.setattr(batch_sizes, "free_bytes", lambda device: 6 * image)
    size = settle_batch_size(loaded, tmp_path, "auto", WORK, attempt, lambda line: None)
    assert (size, tried) == (4, [1, 2, 4])
    loaded.batch_limits = {}


def test_sizes_belong_to_one_model_and_one_kind_of_work(
    loaded: LoadedSDXL, sdxl_folder: Path, tmp_path: Path
) -> None:
    mine = KeptBatchSizes(tmp_path, loaded)
    mine[WORK] = 2
    mine.keep(("inpaint", 64, 64), 8)
    again = KeptBatchSizes(tmp_path, loaded)
    assert dict(again) == {WORK: 2} and again.found == {("inpaint", 64, 64): 8}
    other = load_sdxl(ModelRef(source=str(sdxl_folder), dtype="bfloat16"))
    assert not KeptBatchSizes(tmp_path, other)
    (tmp_path / FILE).write_text('{"a": {"limit": 0}}', encoding="utf-8")
    with pytest.raises(HoiError, match=f"{FILE} cannot be read.*\n.*remove it"):
        KeptBatchSizes(tmp_path, loaded)


def test_auto_is_in_no_key_and_nonsense_is_refused(settings: Settings) -> None:
    automatic = make_image_spec(settings.sampling, "a ball", 1, 21)
    given = make_image_spec(with_batch(settings, 4).sampling, "a ball", 1, 21)
    assert (automatic.slot, given.slot) == (21, 1)
    assert image_key(automatic, "base") == image_key(given, "base")
    for wrong in (0, 257, "all"):
        with pytest.raises(ValidationError, match="1 validation error") as error:
            Sampling(batch_size=wrong)  # type: ignore[arg-type]
        assert "an integer from 1 to 256, or auto" in str(error.value)
