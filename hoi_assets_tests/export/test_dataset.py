"""Promises of the dataset's exports: opened by `datasets` and `webdataset`."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from hoi_assets.export.dataset import export_dataset
from hoi_assets.export.pairs import export_id
from hoi_assets.export.shards import export_webdataset
from hoi_assets.hashing import digest_folder, digest_pixels
from hoi_assets.picture_marks import TRAINED, read_mark
from hoi_assets.store.versions import Store
from hoi_assets_tests.export.published import AWKWARD, publish_dataset


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("export") / "home")
    publish_dataset(store)
    return store


@pytest.fixture(scope="module")
def parquet(store: Store) -> Path:
    return export_dataset(store, store.home.parent / "dataset").folder


@pytest.fixture(scope="module")
def shards(store: Store) -> Path:
    return export_webdataset(store, store.home.parent / "shards").folder


def published(store: Store) -> dict[str, dict[str, Any]]:
    """Accepted rows of the dataset, by export id."""
    rows = store.require("hoi_dataset").table("rows").filter(status="accepted")
    return {export_id(row["image_id"]): row for row in rows.to_dicts()}


def streamed(folder: Path, *config: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    opened = datasets.load_dataset(str(folder), *config, streaming=True)
    for split, rows in opened.items():
        if "image" in (rows.features or {}):
            rows = rows.cast_column("image", datasets.Image(decode=False))
        for row in rows:
            yield split, row


@pytest.mark.slow
def test_datasets_streams_every_pair_with_its_caption_byte_for_byte(
    store: Store, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = published(store)
    captions = set()
    for split, row in streamed(parquet):
        own = wanted.pop(row["id"])
        assert split == own["split"]
        assert row["text"].encode() == own["prompt"].encode()
        picture = row["image"]["bytes"]
        assert read_mark(picture) == TRAINED
        assert digest_pixels(Image.open(io.BytesIO(picture))) == own["pixels"] == row["pixels"]
        captions.add(row["text"])
    assert not wanted
    assert AWKWARD in captions


@pytest.mark.slow
def test_what_was_left_out_is_published_beside_with_reasons_and_rates(
    parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = pl.DataFrame([row for _, row in streamed(parquet, "rejected")])
    counts = dict(rows.group_by("stage").len().iter_rows())
    assert counts == {"detailed_prompts": 1, "verified_pairs": 12, "hoi_dataset": 12}
    assert rows["reason"].null_count() == 0 and (rows["reason"] != "").all()
    rates = pl.DataFrame([row for _, row in streamed(parquet, "filter_rates")])
    found = {
        (row["category"], row["stage"], row["code"]): (row["rows"], row["of"])
        for row in rates.to_dicts()
    }
    assert found["all", "verified_pairs", "low_fidelity"] == (12, 48)
    assert found["hook", "verified_pairs", None] == (18, 24)
    assert found["all", "hoi_dataset", "exact_duplicate"] == (12, 36)
    assert found["hook", "detailed_prompts", "no_reply"] == (1, 25)


@pytest.mark.slow
def test_webdataset_reads_the_same_pairs(store: Store, shards: Path) -> None:
    import webdataset

    wanted = published(store)
    for path in sorted(shards.glob("*.tar")):
        for pair in webdataset.WebDataset(str(path), shardshuffle=False):
            own = wanted.pop(pair["__key__"])
            assert pair["txt"] == own["prompt"].encode()
            assert read_mark(pair["png"]) == TRAINED
            assert digest_pixels(Image.open(io.BytesIO(pair["png"]))) == own["pixels"]
            about = json.loads(pair["json"])
            assert about["category"] == own["category"]
            assert path.name.startswith(own["split"])
    assert not wanted
    decoded = webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")
    assert next(iter(decoded))["png"].size == (128, 128)


def test_ids_are_opaque_everywhere(store: Store, parquet: Path, shards: Path) -> None:
    own = [row["image_id"] for row in store.require("hoi_dataset").table("rows").to_dicts()]
    for path in [*parquet.rglob("*"), *shards.rglob("*")]:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            text = json.dumps(table.select(pl.col(pl.String)).to_dicts())
        elif path.is_file():
            text = path.read_bytes().decode("latin-1")
        else:
            continue
        assert not [one for one in own if f'"{one}"' in text or f" {one}\n" in text], path


def test_equal_versions_give_equal_bytes(store: Store, parquet: Path, shards: Path) -> None:
    other = store.home.parent / "other"
    export_dataset(store, other / "dataset")
    export_webdataset(store, other / "shards")
    assert digest_folder(other / "dataset") == digest_folder(parquet)
    assert digest_folder(other / "shards") == digest_folder(shards)


def test_card_shows_counts_rates_and_the_mark(parquet: Path) -> None:
    card = (parquet / "README.md").read_text(encoding="utf-8")
    assert "24 pairs:" in card
    assert "| `verified_pairs` | rejected | low_fidelity | 12 of 48 | 25.0% |" in card
    assert "trainedAlgorithmicMedia" in card
