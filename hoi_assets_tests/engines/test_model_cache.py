"""Promises of the model cache, with small models on disk."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hoi_assets.engines import model_cache
from hoi_assets.engines.clip_score import clip_scores, load_clip
from hoi_assets.engines.examiner import load_examiner
from hoi_assets.engines.image_reward import load_image_reward
from hoi_assets.engines.model_cache import ModelCache, ModelKey, size_bytes
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.engines.vilt.verifier import load_verifier, score_pairs
from hoi_assets.settings import ModelRef, Sampling
from hoi_assets_tests.engines.small_judges import picture
from hoi_assets_tests.engines.small_sd3 import make_sd3


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    model_cache.clear()
    yield
    model_cache.clear()
    model_cache.configure(None)


def kinds() -> list[str]:
    return [key.kind for key in model_cache.cached_keys()]


def size(model: Any) -> int:
    return size_bytes(model.modules)


def test_model_is_loaded_once_whatever_its_path(clip_folder: Path, tmp_path: Path) -> None:
    first = load_clip(clip_folder)
    assert load_clip(str(clip_folder)) is first
    (tmp_path / "link").symlink_to(clip_folder)
    assert load_clip(tmp_path / "link") is first
    assert load_clip(ModelRef(source=str(clip_folder), dtype="bfloat16")) is not first


def test_least_recently_used_model_is_evicted_first(
    clip_folder: Path, vilt_folder: Path, examiner_folder: Path
) -> None:
    sizes = [size(load_clip(clip_folder)), size(load_verifier(vilt_folder))]
    load_clip(clip_folder)
    assert kinds() == ["verifier", "clip"]
    model_cache.configure(sum(sizes))
    load_examiner(examiner_folder)
    assert kinds() == ["clip", "examiner"]


def test_models_in_memory_stay_within_the_budget(
    clip_folder: Path, vilt_folder: Path, examiner_folder: Path, image_reward_folder: Path
) -> None:
    loads: list[Any] = [
        lambda: load_clip(clip_folder),
        lambda: load_verifier(vilt_folder),
        lambda: load_examiner(examiner_folder),
        lambda: load_image_reward(image_reward_folder),
    ]
    sizes = {
        model_cache.cached_keys()[-1].kind: size(model) for model in (load() for load in loads)
    }
    budget = max(sizes.values()) + min(sizes.values())
    model_cache.configure(budget)
    for load in loads * 2:
        load()
        assert sum(sizes[kind] for kind in kinds()) <= budget
        assert kinds()


def test_lower_budget_evicts_at_once(clip_folder: Path, vilt_folder: Path) -> None:
    load_clip(clip_folder)
    model_cache.configure(size(load_verifier(vilt_folder)))
    assert kinds() == ["verifier"]


def test_model_larger_than_the_budget_is_loaded_alone(
    clip_folder: Path, vilt_folder: Path, examiner_folder: Path
) -> None:
    load_clip(clip_folder)
    load_verifier(vilt_folder)
    model_cache.configure(1)
    examiner = load_examiner(examiner_folder)
    assert kinds() == ["examiner"]
    assert load_examiner(examiner_folder) is examiner


def test_sdxl_and_sd3_do_not_stay_in_memory_together(sdxl_folder: Path, tmp_path: Path) -> None:
    make_sd3(tmp_path / "sd3")
    sdxl = load_sdxl(ModelRef(source=str(sdxl_folder)))
    model_cache.configure(size(sdxl))
    unet = weakref.ref(sdxl.pipe.unet)
    del sdxl
    load_sd3(ModelRef(source=str(tmp_path / "sd3")))
    assert kinds() == ["LoadedSD3"]
    assert unet() is None


def test_reloaded_models_give_the_same_images_and_scores(
    sdxl_folder: Path, clip_folder: Path, vilt_folder: Path, sampling: Sampling
) -> None:
    row = make_image_spec(sampling, "a red ball", 3, 0)
    images, texts = [picture(0), picture(1)], ["a red ball", "a box"]

    def results() -> tuple[bytes, np.ndarray, np.ndarray]:
        (drawn,) = generate_images(load_sdxl(ModelRef(source=str(sdxl_folder))), [row], 4)
        assert drawn.image is not None
        return (
            drawn.image.tobytes(),
            clip_scores(load_clip(clip_folder), images, texts),
            score_pairs(load_verifier(vilt_folder), images, texts).probabilities,
        )

    first = results()
    model_cache.configure(1)  # every load now evicts the others
    second = results()
    assert kinds() == ["verifier"]
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1]) and np.array_equal(first[2], second[2])


def test_evicted_model_that_is_still_in_use_goes_on_working(
    sdxl_folder: Path, clip_folder: Path, sampling: Sampling
) -> None:
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    rows = [make_image_spec(sampling, "a red ball", seed, 0) for seed in range(2)]
    wanted = [drawn.image for drawn in generate_images(loaded, rows, 4)]
    model_cache.configure(1)
    found = []
    for drawn in generate_images(loaded, rows, 4):
        found.append(drawn.image)
        load_clip(clip_folder)
        assert "LoadedSDXL" not in kinds()
    assert [image.tobytes() for image in found if image] == [i.tobytes() for i in wanted if i]


def test_cache_alone_keeps_no_evicted_model_alive(clip_folder: Path, vilt_folder: Path) -> None:
    model = weakref.ref(load_clip(clip_folder).model)
    gc.collect()
    assert model() is not None
    model_cache.configure(1)
    load_verifier(vilt_folder)
    assert model() is None


def test_default_budget_is_half_of_the_free_memory() -> None:
    cache = ModelCache()
    free = model_cache.free_bytes("cpu")
    assert 0.3 * free < cache.budget("cpu") < 0.7 * free
    assert ModelCache(5).budget("cpu") == 5


def test_shared_tensor_counts_once() -> None:
    layer = torch.nn.Linear(3, 4)
    assert size_bytes([layer]) == size_bytes([layer, layer]) == (3 * 4 + 4) * 4


def test_failed_load_leaves_the_cache_as_it_was() -> None:
    cache = ModelCache()

    def fail() -> Any:
        raise RuntimeError("no such weights")

    with pytest.raises(RuntimeError):
        cache.get(ModelKey("clip", "d", "float32", "cpu"), fail)
    assert cache.keys() == ()
