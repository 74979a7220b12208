"""Promises of the dataset folder, of duplicates and of splits."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image, ImageDraw

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_folder
from hoi_assets.picture_marks import TRAINED, read_mark
from hoi_assets.ppv import dataset_files
from hoi_assets.ppv.dataset_files import dataset_arrow_schema
from hoi_assets.ppv.image_duplicates import DuplicateImage, find_duplicate_images
from hoi_assets.ppv.packaging import package_dataset
from hoi_assets.ppv.splits import SPLITS, split_by_base_prompt
from hoi_assets.settings import ROOT, Dataset
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.evaluation.report_parents import publish, verifier_tables

TAXONOMY = load_taxonomy(ROOT / "data" / "taxonomy")


def scene(seed: int, colour: str = "red", size: int = 128) -> Image.Image:
    """A wall with a few coloured shapes at places of their own."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), "lightgrey")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = (int(v) for v in rng.integers(8, size - 8, 3) * (1, 1, 0.4))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline="black")
    return image


# Duplicates


def _ids(found: list[DuplicateImage]) -> list[tuple[str, str, str]]:
    return [(one.image_id, one.of, one.kind) for one in found]


def test_equal_pixels_are_exact_duplicates_of_the_first() -> None:
    images = [("a", scene(1)), ("b", scene(2)), ("c", scene(1)), ("d", scene(1))]
    assert _ids(find_duplicate_images(images, 4)) == [("c", "a", "exact"), ("d", "a", "exact")]


def test_slightly_altered_picture_is_a_perceptual_duplicate() -> None:
    noisy = np.asarray(scene(1), dtype=int) + np.random.default_rng(0).integers(
        -6, 7, (128, 128, 3)
    )
    altered = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    found = find_duplicate_images([("a", scene(1)), ("b", altered), ("c", altered)], 4)
    assert _ids(found) == [("b", "a", "perceptual"), ("c", "a", "perceptual")]


def test_same_scene_in_another_colour_is_not_a_duplicate() -> None:
    assert find_duplicate_images([("a", scene(1, "red")), ("b", scene(1, "blue"))], 4) == []


def test_different_scenes_are_no_duplicates() -> None:
    assert find_duplicate_images([(str(n), scene(n)) for n in range(40)], 4) == []


def test_picture_added_at_the_end_displaces_none_before() -> None:
    images = [(str(n), scene(n % 7)) for n in range(20)]
    before = find_duplicate_images(images, 4)
    assert find_duplicate_images([*images, ("new", scene(3))], 4)[: len(before)] == before


def test_duplicate_names_its_original() -> None:
    (found,) = find_duplicate_images([("a", scene(1)), ("b", scene(1))], 4)
    assert found.reason == "exact_duplicate of a"


# Splits


def test_split_of_a_base_prompt_stays_when_others_are_added() -> None:
    few = split_by_base_prompt([f"p{n}" for n in range(40)], 0.15, 0.15)
    many = split_by_base_prompt([f"p{n}" for n in range(400)], 0.15, 0.15)
    assert {name: many[name] for name in few} == few


def test_split_shares_are_about_as_asked() -> None:
    counts = Counter(split_by_base_prompt(map(str, range(4000)), 0.1, 0.2).values())
    assert counts["validation"] == pytest.approx(400, rel=0.15)
    assert counts["test"] == pytest.approx(800, rel=0.15)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12])
@pytest.mark.parametrize("seed", range(10))
def test_no_split_is_empty_from_three_base_prompts_on(count: int, seed: int) -> None:
    found = split_by_base_prompt([f"p{n}" for n in range(count)], 0.15, 0.15, seed)
    assert set(found.values()) == set(SPLITS)


def test_two_base_prompts_are_all_train() -> None:
    assert split_by_base_prompt(["a", "b"], 0.4, 0.4) == {"a": "train", "b": "train"}


def test_split_does_not_depend_on_order() -> None:
    names = [f"p{n}" for n in range(9)]
    assert split_by_base_prompt(names, 0.2, 0.2) == split_by_base_prompt(names[::-1], 0.2, 0.2)


# The dataset


def _publish(store: Store, asset: str, category: str, rows: list[dict[str, Any]]) -> Published:
    with store.stage(asset, category) as staging:
        staging.write_table("rows", pl.DataFrame(rows, infer_schema_length=None))
        return store.publish(staging, {}, run_id="run")


def make_pipeline(store: Store, base_prompts: int = 6) -> dict[str, Any]:
    """Two categories; per base prompt three accepted pairs (two of equal pixels), one rejected."""
    verdicts, prompts = {}, {}
    for place, category in enumerate(("hook", "tripod")):
        said, found = [], []
        for number in range(base_prompts):
            base = f"{category}-base-{number}"
            for index in range(4):
                key = place * 1000 + number * 10 + index
                said.append(
                    {
                        "prompt_id": f"{base}-{index}",
                        "base_prompt_id": base,
                        "category": category,
                        "prompt": f"a hand and thing {key}",
                        "object": "bag",
                        "colour": None if index == 1 else "red",
                    }
                )
                found.append(
                    {
                        "image_id": f"image-{key}",
                        "prompt_id": f"{base}-{index}",
                        "category": category,
                        "prompt": f"a hand and thing {key}",
                        "pixels": store.images.put(scene(key - index if index == 3 else key)),
                        "p_fidelity": 0.9,
                        "p_alignment": 0.8,
                        "status": "rejected" if index == 2 else "accepted",
                        "reason": "low_fidelity" if index == 2 else None,
                        "verifier_version": "ab12",
                    }
                )
        verdicts[category] = _publish(store, "verified_pairs", category, found)
        prompts[category] = _publish(store, "detailed_prompts", category, said)
    return {"verdicts": verdicts, "prompts": prompts, "missing": ["worn"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def package(store: Store, folder: Path, **pipeline: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    given = pipeline or make_pipeline(store)
    parents = {name: given[name] for name in ("verdicts", "prompts")}
    tables = {
        name: {key: one.table("rows") for key, one in found.items()}
        for name, found in parents.items()
    }
    return package_dataset(
        store,
        Dataset(),
        TAXONOMY,
        **tables,
        versions={one.name: one.version for found in parents.values() for one in found.values()},
        folder=folder,
        **{name: value for name, value in given.items() if name not in parents},
    )


@pytest.mark.slow
def test_dataset_opens_with_plain_load_dataset(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    folder = tmp_path / "dataset"
    rows, summary = package(store, folder)
    opened = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(opened[split]) for split in SPLITS} == {
        split: summary[split][0] for split in SPLITS
    }
    assert isinstance(opened["train"].features["image"], datasets.Image)
    kept = {row["image_id"]: row for row in rows.filter(status="accepted").to_dicts()}
    for split in SPLITS:
        for example in opened[split]:
            row = kept.pop(example["image_id"])
            assert row["split"] == split
            assert example["text"] == row["prompt"]
            assert example["image"].tobytes() == store.images.open(row["pixels"]).tobytes()
            assert example["object"] == "bag"
    assert not kept
    own = datasets.Features(opened["train"].features)
    assert own == datasets.Features.from_arrow_schema(dataset_arrow_schema())


def test_every_picture_of_the_dataset_carries_the_mark_of_ai_generation(
    store: Store, tmp_path: Path
) -> None:
    package(store, tmp_path / "dataset")
    cells = pl.concat(
        pl.read_parquet(file, columns=["image"])
        for file in (tmp_path / "dataset" / "data").glob("*.parquet")
    )
    marks = [read_mark(cell["bytes"]) for cell in cells["image"]]
    assert marks == [TRAINED] * 24


def test_every_accepted_verdict_is_kept_or_rejected_with_a_reason(
    store: Store, tmp_path: Path
) -> None:
    rows, summary = package(store, tmp_path / "dataset")
    assert rows.height == 36
    assert summary.row(0, named=True) | {"train": 0, "validation": 0, "test": 0} == {
        "rows": 24,
        "categories": 2,
        "train": 0,
        "validation": 0,
        "test": 0,
        "duplicates": 12,
        "missing_categories": "worn",
    }
    dropped = rows.filter(status="rejected")
    assert dropped["reason"].str.starts_with("exact_duplicate of image-").all()
    assert dropped["split"].is_null().all()


def test_base_prompt_lies_in_one_split_only(store: Store, tmp_path: Path) -> None:
    rows, _ = package(store, tmp_path / "dataset")
    kept = rows.filter(status="accepted")
    assert kept.group_by("base_prompt_id").agg(pl.col("split").n_unique())["split"].eq(1).all()
    assert set(kept["split"]) == set(SPLITS)


def test_equal_pairs_give_equal_bytes(store: Store, tmp_path: Path) -> None:
    pipeline = make_pipeline(store)
    package(store, tmp_path / "a", **pipeline)
    package(store, tmp_path / "b", **pipeline)
    assert digest_folder(tmp_path / "a") == digest_folder(tmp_path / "b")


def test_large_splits_are_cut_into_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_files, "SHARD_BYTES", 1)
    monkeypatch.setattr(dataset_files, "ROWS_PER_GROUP", 5)
    _, summary = package(store, tmp_path / "dataset")
    files = sorted((tmp_path / "dataset" / "data").glob("train-*.parquet"))
    assert files[0].name == "train-00000.parquet"
    assert len(files) == -(-summary["train"][0] // 5)
    assert sum(pl.read_parquet(file).height for file in files) == summary["train"][0]


def test_card_states_counts_versions_and_what_is_missing(store: Store, tmp_path: Path) -> None:
    pipeline = make_pipeline(store)
    _, summary = package(
        store, tmp_path / "dataset", **pipeline, sources={"base model": "tiny, revision 1"}
    )
    card = (tmp_path / "dataset" / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    listed = {part["split"] for part in yaml.safe_load(header)["configs"][0]["data_files"]}
    assert listed == {split for split in SPLITS if summary[split][0]}
    assert "24 pairs of 12 base prompts, from 48 candidates" in body
    assert f"`verified_pairs/hook`: version {pipeline['verdicts']['hook'].version}" in body
    assert "therefore absent: worn" in body
    assert "base model: tiny, revision 1" in body
    assert "| `hook` (" in body
    assert str(tmp_path) not in card


def test_card_opens_with_what_the_verifier_can_and_cannot_tell(
    store: Store, tmp_path: Path
) -> None:
    tables = verifier_tables(idle="fidelity", precision=(0.70, 0.60, 0.78), target_met=True)
    judge = publish(store, "verifier", **tables)
    pipeline = make_pipeline(store)
    rows = pipeline["verdicts"]["hook"].table("rows").to_dicts()
    of_judge = [row | {"verifier_version": judge.version} for row in rows]
    pipeline["verdicts"]["hook"] = _publish(store, "verified_pairs", "hook", of_judge)
    package(store, tmp_path / "dataset", **pipeline)
    card = (tmp_path / "dataset" / "README.md").read_text(encoding="utf-8")
    opening = card.split("# Verified hand-object interactions\n")[1].split("Generated pictures")[0]
    assert "Fidelity is not judged" in opening and "the target of 95% is missed" in opening
    # Of the other category's verifier nothing is known, and nothing is claimed.
    assert "What the verifier ab12 can and cannot tell" in opening
    assert "Not known: this version is not in the store." in opening
    assert "accepts or rejects each pair on" not in card and "a verifier found true" not in card


def test_dataset_of_two_base_prompts_has_a_train_split_alone(store: Store, tmp_path: Path) -> None:
    package(store, tmp_path / "dataset", **make_pipeline(store, base_prompts=1))
    files = [file.name for file in (tmp_path / "dataset" / "data").iterdir()]
    assert files == ["train-00000.parquet"]


def test_nothing_accepted_is_an_error_with_the_remedy(store: Store, tmp_path: Path) -> None:
    pipeline = make_pipeline(store)
    rows = pipeline["verdicts"]["hook"].table("rows").with_columns(status=pl.lit("rejected"))
    pipeline["verdicts"] = {"hook": _publish(store, "verified_pairs", "hook", rows.to_dicts())}
    with pytest.raises(HoiError, match=r"no accepted pair in hook\n  draw more candidates"):
        package(store, tmp_path / "dataset", **pipeline)
