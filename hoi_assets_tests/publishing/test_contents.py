"""What a version holds beside its tables is audited: weights, files, the pictures it names."""

from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from hoi_assets.publishing.contents import CONTENTS, contents
from hoi_assets.publishing.metadata import Table, as_text, plain
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.conftest import picture

SOUND = {"a": torch.ones(2, 3), "b": torch.full((2,), 0.5, dtype=torch.float16)}


def row(folder: Path, name: str) -> dict[str, object]:
    store = Store(folder / "home")
    table = contents(folder / "staged", {}, store.images)
    assert table.schema == pl.Schema(CONTENTS.schema)
    (found,) = table.filter(name=name).to_dicts()
    return found


@pytest.mark.parametrize(
    ("tensors", "zero", "not_finite", "largest"),
    [
        (SOUND, 0, 0, 1.0),
        ({"a": torch.zeros(3), "b": torch.ones(1)}, 1, 0, 1.0),
        ({"a": torch.tensor([float("nan"), float("inf"), 2.0])}, 0, 2, 2.0),
        ({"a": torch.full((2,), 6e4, dtype=torch.float16)}, 0, 0, 6e4),
    ],
    ids=["sound", "zero", "not finite", "exploded"],
)
def test_weights_that_learnt_nothing_or_exploded_show(
    tmp_path: Path, tensors: dict[str, torch.Tensor], zero: int, not_finite: int, largest: float
) -> None:
    (tmp_path / "staged" / "lora").mkdir(parents=True)
    save_file(tensors, tmp_path / "staged" / "lora" / "w.safetensors")
    found = row(tmp_path, "lora/w.safetensors")
    assert (found["kind"], found["problem"]) == ("weights", None)
    assert (found["zero_tensors"], found["not_finite"]) == (zero, not_finite)
    assert found["largest"] == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize("name", ["w.safetensors", "rows.parquet", "page.html"])
def test_files_that_nobody_can_read_have_a_problem(tmp_path: Path, name: str) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / name).write_bytes(b"" if name == "page.html" else b"\x10\0\0\0\0\0\0\0{")
    assert row(tmp_path, name)["problem"]


def test_pictures_that_are_nowhere_stored_have_a_problem(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    store = Store(tmp_path / "home")
    there = store.images.put(picture(1))
    rows = pl.DataFrame({"pixels": [there, "0" * 64, None, "no digest"]})
    found = contents(tmp_path / "staged", {"rows": rows}, store.images)
    problems = dict(found.select("name", "problem").iter_rows())
    assert problems[there] is None
    assert problems["0" * 64] == "not stored" and "no digest" in str(problems["no digest"])


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "![x](http://a.example/x.png)",
        "\\[x](javascript:y)",
        "a\n# b",
    ],
)
def test_prompts_are_text_in_dagsters_markdown(text: str) -> None:
    from markdown_it import MarkdownIt

    shown = plain("rows", Table([{"prompt": text}]))["value"]
    for markdown in (shown, f"- {as_text(text)}"):
        tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
        kinds = {one.type for token in tokens for one in [token, *(token.children or [])]}
        assert not kinds & {"html_inline", "html_block", "image", "link_open", "heading_open"}
