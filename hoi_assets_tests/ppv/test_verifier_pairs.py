"""Manual labels as the verifier's training pairs: what is read, and what is refused by line."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.ppv.verifier_pairs import labelled_pairs, labels_digest
from hoi_assets.settings import Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import load_taxonomy


def settings_for(folder: Path) -> Settings:
    tiny = load_settings("tiny")
    labelled = tiny.verifier.model_copy(update={"labels_folder": str(folder)})
    return tiny.model_copy(update={"verifier": labelled})


def write(folder: Path, lines: list[str]) -> None:
    text = "\n".join(["file,prompt,fidelity,alignment,category", *lines]) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "labels"
    own.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(own / f"{number}.png")
    write(own, [f"{n}.png,a hand {n},{n % 2},{(n + 1) % 2},hook" for n in range(40)])
    return own


def read(folder: Path, tmp_path: Path) -> pl.DataFrame:
    settings = settings_for(folder)
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    return labelled_pairs(Store(tmp_path / "home"), settings, taxonomy, print)


def test_every_label_is_a_pair_in_one_of_three_splits(folder: Path, tmp_path: Path) -> None:
    pairs = read(folder, tmp_path)
    assert pairs.height == 40
    assert set(pairs["split"]) == {"train", "validation", "test"}
    row = pairs.filter(pl.col("prompt") == "a hand 3").row(0, named=True)
    assert (row["fidelity"], row["alignment"], row["category"]) == (True, False, "hook")


def test_a_picture_labelled_twice_stays_in_one_split(folder: Path, tmp_path: Path) -> None:
    write(folder, [f"{n}.png,{text},1,0,hook" for n in range(40) for text in ("one", "two")])
    pairs = read(folder, tmp_path)
    assert pairs.group_by("pixels").agg(pl.col("split").n_unique())["split"].max() == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.png,a hand,2,1,hook", "line 2: labels must be 0 or 1"),
        ("0.png,,1,1,hook", "line 2: prompt: is empty"),
        (",a hand,1,1,hook", "line 2: file: is empty"),
        ('0.png,"a\nhand",1,1,hook', "line 2: prompt: control_character: U.000A"),
        ("0.png,a hand, with a cup,1,1,hook", "could not parse"),
        ("0.png,a hand,1,1,hook,more", "found more fields"),
        ("absent.png,a hand,1,1,hook", "line 2: .*absent.png is unreadable"),
    ],
)
def test_bad_line_is_named(folder: Path, tmp_path: Path, line: str, words: str) -> None:
    write(folder, [line])
    with pytest.raises(HoiError, match=words):
        read(folder, tmp_path)


def test_column_that_comes_twice_is_named(folder: Path, tmp_path: Path) -> None:
    text = "file,prompt,prompt,fidelity,alignment\n0.png,a hand,a cup,1,1\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(HoiError, match="names a column twice: prompt"):
        read(folder, tmp_path)


def test_missing_column_and_missing_file_say_what_to_give(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").write_text("file,prompt\n0.png,a hand\n", encoding="utf-8")
    with pytest.raises(HoiError, match="alignment, fidelity"):
        read(folder, tmp_path)
    (folder / "labels.csv").unlink()
    with pytest.raises(HoiError, match=r"labels\.csv"):
        labels_digest(settings_for(folder))
