"""Promises of the triples for correctors."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from hoi_assets.detailscribe.critique import CRITIQUE_FINDINGS, CRITIQUE_ROWS
from hoi_assets.detailscribe.image_rows import IMAGE_ROWS
from hoi_assets.errors import HoiError
from hoi_assets.export.triples import export_triples
from hoi_assets.hashing import digest_pixels
from hoi_assets.picture_marks import ALGORITHMIC, TRAINED, read_mark
from hoi_assets.ppv.verdicts import VERDICT_ROWS
from hoi_assets.settings import ROOT
from hoi_assets.store.scene_pool import read_pool
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.conftest import picture
from hoi_assets_tests.rating.published import publish

# Initial picture, chosen picture, components that it shows (of 2), and what becomes of the row.
ROWS = {
    "better": (1, 2, 2, None),
    "partly": (3, 4, 1, "shows 1 of 2 components"),
    "as it was": (5, 5, 2, "the initial picture was chosen"),
}


def frame(table: Any, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=table.schema)


def publish_refinement(store: Store) -> None:
    initial, refined, critiques, findings = [], [], [], []
    for name, (first, chosen, satisfied, _) in ROWS.items():
        row = {"row_id": name, "prompt": f"a hand “stirs”  {name}", "status": "accepted"}
        pixels = store.images.put(picture(first))
        initial.append(row | {"image_id": f"image-{first}", "pixels": pixels, "method": "plain"})
        for number, seen in ((90 + first, 0), (chosen, satisfied)):
            pixels = store.images.put(picture(number))
            refined.append(
                row
                | {
                    "method": "detailscribe",
                    "pixels": pixels,
                    "satisfied": seen,
                    "selected": number == chosen,
                }
            )
        critiques.append(
            row
            | {
                "image_id": f"image-{first}",
                "corrected_prompt": f"{row['prompt']}, a spoon",
                "nothing_to_correct": False,
                "components": 2,
                "failing": 1,
            }
        )
        findings.append(
            {
                "row_id": name,
                "rank": 0,
                "subject": "hand",
                "relation": "holds",
                "object": "spoon",
                "satisfied": False,
                "confidence": 0.9,
                "problem": "no spoon",
                "correction": "a spoon",
            }
        )
    publish(store, "initial_images", "functional", frame(IMAGE_ROWS, initial))
    publish(store, "refined_images", "functional", frame(IMAGE_ROWS, refined))
    with store.stage("image_critiques", "functional") as staging:
        staging.write_table("rows", frame(CRITIQUE_ROWS, critiques))
        staging.write_table("findings", frame(CRITIQUE_FINDINGS, findings))
        store.publish(staging, {}, None)


def publish_verdicts(store: Store) -> None:
    rows = []
    for number, (prompt, status, fidelity) in enumerate(
        [
            ("a", "accepted", 0.7),
            ("a", "rejected", 0.1),
            ("a", "accepted", 0.9),
            ("b", "rejected", 0.2),
        ]
    ):
        rows.append(
            {
                "image_id": f"candidate-{number}",
                "prompt_id": prompt,
                "prompt": f"prompt {prompt}",
                "category": "hook",
                "pixels": store.images.put(picture(200 + number)),
                "p_fidelity": fidelity,
                "p_alignment": 0.8,
                "status": status,
                "reason": "low_fidelity" if status == "rejected" else None,
            }
        )
    publish(store, "verified_pairs", "hook", frame(VERDICT_ROWS, rows))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("triples") / "home")
    publish_refinement(store)
    publish_verdicts(store)
    return store


@pytest.fixture(scope="module")
def folder(store: Store) -> Path:
    pool = store.home.parent / "pool"
    pool.mkdir()
    rows = read_pool(ROOT / "data" / "pool", "judge_val").head(3)
    rows.write_parquet(pool / "twins.parquet")
    return export_triples(store, store.home.parent / "out", pool).folder


def triples(folder: Path, source: str) -> list[dict[str, Any]]:
    import datasets

    opened = datasets.load_dataset(str(folder), split="train", streaming=True)
    for name in ("flawed", "accepted"):
        opened = opened.cast_column(name, datasets.Image(decode=False))
    return [row for row in opened if row["source"] == source]


def pixels(cell: dict[str, Any], mark: str) -> str:
    assert read_mark(cell["bytes"]) == mark
    return digest_pixels(Image.open(io.BytesIO(cell["bytes"])))


@pytest.mark.slow
def test_critique_stands_between_the_flawed_picture_and_the_accepted_one(folder: Path) -> None:
    (row,) = triples(folder, "detailscribe")
    assert row["text"] == "a hand “stirs”  better"
    assert row["corrected_text"] == "a hand “stirs”  better, a spoon"
    (finding,) = json.loads(row["critique"])
    assert finding["problem"] == "no spoon" and finding["satisfied"] is False
    assert pixels(row["flawed"], TRAINED) == digest_pixels(picture(1))
    assert pixels(row["accepted"], TRAINED) == digest_pixels(picture(2))


@pytest.mark.slow
def test_rejected_candidate_goes_with_the_best_accepted_one_of_its_prompt(folder: Path) -> None:
    (row,) = triples(folder, "verifier")
    assert json.loads(row["critique"])[0]["reason"] == "low_fidelity"
    assert pixels(row["flawed"], TRAINED) == digest_pixels(picture(201))
    assert pixels(row["accepted"], TRAINED) == digest_pixels(picture(202))


@pytest.mark.slow
def test_twins_name_their_flaw_and_are_marked_as_renders(folder: Path) -> None:
    pool = read_pool(folder.parent / "pool", "judge_val").sort("scene_id")
    for row, own in zip(triples(folder, "twins"), pool.iter_rows(named=True), strict=True):
        (finding,) = json.loads(row["critique"])
        assert finding["defect"] == own["defect"] and len(finding["box"]) == 4
        assert pixels(row["flawed"], ALGORITHMIC) == own["digest"]
        assert pixels(row["accepted"], ALGORITHMIC) == own["twin_digest"]


def test_flawed_pictures_without_an_accepted_one_are_named_with_the_reason(folder: Path) -> None:
    left = pl.read_parquet(folder / "rejected" / "rejected.parquet")
    reasons = dict(left.select("text", "reason").iter_rows())
    for name, (_, _, _, reason) in ROWS.items():
        if reason:
            assert reason in reasons[f"a hand “stirs”  {name}"]
    assert reasons["prompt b"] == "no candidate of this prompt was accepted"
    rates = pl.read_parquet(folder / "filter_rates" / "filter_rates.parquet")
    assert dict(rates.select("source", "flawed").iter_rows()) == {
        "detailscribe": 3,
        "verifier": 2,
        "twins": 3,
    }
    assert dict(rates.select("source", "triples").iter_rows()) == {
        "detailscribe": 1,
        "verifier": 1,
        "twins": 3,
    }


def test_nothing_to_make_triples_of_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="hoi run"):
        export_triples(Store(tmp_path / "home"), tmp_path / "out", None)
