"""Pages of generated pictures, their labels, and the examiner held against them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.engines.examiner import load_examiner
from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights.manual_labels import (
    COLUMNS,
    FOLDER,
    LABELS,
    ROWS,
    SIDE,
    TABLE,
    agreement,
    read_pages,
    write_pages,
)

ASKED = {"true_caption": "a red ball", "category": "hook", "object": "ball", "colour": "red"}


def _write(folder: Path, count: int) -> list[Image.Image]:
    images = [Image.new("RGB", (SIDE, SIDE), (n % 250, 40, 200 - n)) for n in range(count)]
    write_pages(images, [ASKED | {"side": "left"}] * count, folder)
    return images


def test_every_picture_is_found_again_at_its_line(tmp_path: Path) -> None:
    count = COLUMNS * ROWS + 3
    images = _write(tmp_path, count)
    found = list(read_pages(tmp_path))
    assert len(found) == count
    for number, (image, row) in enumerate(found):
        assert row["picture"] == number
        assert all(row[label] is None for label in LABELS.values())
        gap = np.asarray(image, dtype=int) - np.asarray(images[number], dtype=int)
        assert np.abs(gap).mean() < 4


def test_labels_are_not_overwritten(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    with pytest.raises(HoiError, match="exists"):
        _write(tmp_path, 2)


def test_a_missing_page_is_named(tmp_path: Path) -> None:
    _write(tmp_path, 2)
    (tmp_path / "page-1.webp").unlink()
    with pytest.raises(HoiError, match=r"page-1\.webp"):
        list(read_pages(tmp_path))


def test_agreement_counts_only_what_the_eye_is_sure_of(tmp_path: Path, fresh_weights: Path) -> None:
    from hoi_assets.engines.examiner import agrees, examine

    _write(tmp_path, 6)
    examiner = load_examiner(fresh_weights / "examiner")
    images, rows = zip(*read_pages(tmp_path), strict=True)
    said = [agrees(t, r) for t, r in zip(examine(examiner, list(images)), rows, strict=True)]
    # The eye says the same of four pictures, the opposite of one, and nothing of the last.
    labels = [int(row["colour"]) for row in said[:4]] + [int(not said[4]["colour"]), None]
    table = pl.read_csv(tmp_path / TABLE).with_columns(pl.Series("colour_right", labels))
    table.write_csv(tmp_path / TABLE)
    found = agreement(examiner, tmp_path)["colour"]
    assert (found.share.n, found.share.value) == (5, 0.8)


def test_stored_labels_are_whole() -> None:
    rows = [row for _, row in read_pages(FOLDER)]
    assert len(rows) >= 190
    for label in LABELS.values():
        assert {row[label] for row in rows} <= {0, 1, None}
    assert sum(row["colour_right"] is not None for row in rows) > 150
