"""Promises of the score cache: a score is computed once, and old homes' scores are found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hoi_assets.engines.batch_map import Compute
from hoi_assets.engines.cached_scores import (
    Metric,
    cached_clip_scores,
    cached_scores,
    clip_score_metric,
)
from hoi_assets.engines.clip_score import clip_scores, load_clip
from hoi_assets.hashing import digest
from hoi_assets.settings import ModelRef, load_settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_judges import picture

COMPUTE = Compute("cpu", 1)


def rows_in(store: Store, count: int) -> list[dict[str, Any]]:
    return [
        {"pixels": store.images.put(picture(seed)), "prompt": f"a red ball {seed % 2}"}
        for seed in range(count)
    ]


def brightness(folder: Path, computed: list[int]) -> Metric:
    def score(images: Sequence[Any], rows: Any, slots: Sequence[int]) -> list[Any]:
        computed.append(len(images))
        return [
            {"brightness": float(image.convert("L").resize((1, 1)).getpixel((0, 0)))}
            for image in images
        ]

    return Metric("brightness", ModelRef(source=str(folder)), COMPUTE, ("prompt",), score)


def test_each_image_is_scored_once(tmp_path: Path, clip_folder: Path) -> None:
    store, computed = Store(tmp_path), list[int]()
    rows = rows_in(store, 3)
    first = cached_scores(store, brightness(clip_folder, computed), [*rows, rows[0]], print)
    again = cached_scores(Store(tmp_path), brightness(clip_folder, computed), rows, print)
    assert computed == [3]
    assert first == [*again, again[0]]
    assert len({values["brightness"] for values in again}) > 1


def test_another_prompt_or_model_is_another_score(
    tmp_path: Path, clip_folder: Path, vilt_folder: Path
) -> None:
    store, computed = Store(tmp_path), list[int]()
    (row,) = rows_in(store, 1)
    for folder, prompt in ((clip_folder, "a"), (clip_folder, "b"), (vilt_folder, "b")):
        cached_scores(store, brightness(folder, computed), [row | {"prompt": prompt}], print)
    assert computed == [1, 1, 1]


def test_ledger_key_is_that_of_homes_written_before(tmp_path: Path, clip_folder: Path) -> None:
    store = Store(tmp_path)
    (row,) = rows_in(store, 1)
    settings = load_settings("tiny")
    models = settings.models.model_copy(update={"clip": ModelRef(source=str(clip_folder))})
    settings = settings.model_copy(update={"models": models})
    key = digest(
        {
            "scoring": "1",
            "judge": "clip_score",
            "model": model_digest(models.clip),
            "pixels": row["pixels"],
            "asked": {"prompt": row["prompt"]},
        }
    )
    store.ledger.put("score", {key: {"clip_score": 1.25}})
    assert cached_clip_scores(store, settings, [row], print) == [1.25]
    store.ledger.delete("score", [key])
    (value,) = cached_clip_scores(store, settings, [row], print)
    wanted = clip_scores(load_clip(clip_folder), [picture(0)], [row["prompt"]])[0]
    assert value == float(wanted)
    assert clip_score_metric(settings).reads == ("prompt",)


def test_prompts_that_the_model_cuts_are_logged_where_they_are_scored(
    tmp_path: Path, clip_folder: Path
) -> None:
    store, log = Store(tmp_path), list[str]()
    settings = load_settings("tiny")
    models = settings.models.model_copy(update={"clip": ModelRef(source=str(clip_folder))})
    settings = settings.model_copy(update={"models": models})
    short, long = rows_in(store, 2)
    long["prompt"] = "red ball " * 9
    cached_clip_scores(store, settings, [short], log.append)
    assert not any("longer than" in line for line in log)
    for _ in range(2):
        cached_clip_scores(store, settings, [short, long], log.append)
    (line,) = (line for line in log if "longer than" in line)
    assert line.startswith("clip_score: 1 of 1 texts are longer than the")
