"""A blind study counts what the rater saw, and shows no pair twice."""

from pathlib import Path

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.scenes.blind import KEY, LABELS, read_study, write_study
from hoi_assets_tests.tinyworld.weights.shapes import write_twins


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    write_twins(tmp_path / "world", "twins", 300)
    write_study(tmp_path / "world", "twins", tmp_path / "study", per_kind=4)
    return tmp_path / "study"


def _fill(study: Path, spoilt: pl.Expr) -> None:
    key = pl.read_csv(study / KEY)
    key.select("picture", spoilt.cast(pl.Int8).alias("spoilt")).write_csv(study / LABELS)


def test_no_pair_is_shown_twice_and_half_of_the_pictures_are_clean(study: Path) -> None:
    key = pl.read_csv(study / KEY)
    assert key["scene_id"].is_unique().all()
    assert key["defect"].null_count() == key.height // 2 == 48
    assert len(list(study.glob("page-*.webp"))) == 4
    assert "defect" not in (study / LABELS).read_text()


def test_a_rater_who_sees_all_and_one_who_suspects_all(study: Path) -> None:
    _fill(study, pl.col("defect").is_not_null())
    seen = read_study(study)
    assert seen.spoilt.value == 1 and seen.suspected.value == 0
    assert set(seen.by_kind) == set(pl.read_csv(study / KEY)["defect"].drop_nulls())
    _fill(study, pl.lit(True))
    assert read_study(study).suspected.value == 1
    _fill(study, (pl.col("defect") == "floating").fill_null(False))
    seen = read_study(study)
    assert seen.by_kind["floating"].value == 1 and seen.by_kind["melted_hand"].value == 0
    assert "| floating | 1.00 |" in seen.as_text()


def test_unfilled_and_filled_tables_are_refused_where_they_do_not_fit(
    study: Path, tmp_path: Path
) -> None:
    with pytest.raises(HoiError, match="picture 0 has no label"):
        read_study(study)
    with pytest.raises(HoiError, match="exists"):
        write_study(tmp_path / "world", "twins", study)
    with pytest.raises(HoiError, match="are needed"):
        write_study(tmp_path / "world", "twins", tmp_path / "other", per_kind=100)
