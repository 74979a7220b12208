"""Data Docs: a page per validation that a stranger can read, without a network or a server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.publishing.data_docs import build_index
from hoi_assets.publishing.expectations import (
    Suite,
    between,
    in_set,
    not_null,
    row_count,
    share,
    suite,
    unique,
)
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.publishing.validation import ValidationRun, evaluate
from hoi_assets_tests.chromium import running_chromium

CARRIED_OUT = {"asset": "candidate_images", "partition": "hook", "run_id": "0f3a"}
TABLE = pl.DataFrame(
    {
        "image_id": ["i0", "i1", "i2", "i2"],
        "prompt": ["a hand", "a <b>hand</b>", None, "a hand & a cup"],
        "status": ["accepted", "failed", "<i>lost</i>", "accepted"],
        "pixel_std": [50.0, 40.0, 1.0, 60.0],
    }
)
CANDIDATES = suite(
    rows=[
        row_count(1),
        unique("image_id"),
        not_null("prompt"),
        in_set("status", ["accepted", "failed"]),
        between("pixel_std", 5, blocking=False),
        share("failed_share", "status = 'failed'", 0.1),
    ]
)


def validate(home: Path, table: pl.DataFrame = TABLE, declared: Suite = CANDIDATES) -> GateResult:
    return evaluate({"rows": table}, declared, ValidationRun(home, **CARRIED_OUT))


def words(page: Path) -> str:
    """The page's text, tags and style left out."""
    html = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_page_says_what_was_expected_and_what_was_observed(tmp_path):
    gate = validate(tmp_path)
    assert {result.docs_page for result in gate.results} == {gate.docs_page}
    assert gate.docs_page is not None
    assert gate.docs_page.startswith("data_docs/validations/candidate_images/rows/hook.0f3a/")
    text = words(tmp_path / gate.docs_page)
    assert "candidate_images[hook]: table rows" in text
    assert "failed 5 of 8 expectations failed" in text
    assert "failed_share : share of rows where status = 'failed' must be at most 0.1" in text
    assert "0.25 (1 of 4 rows)" in text
    assert "values must be unique" in text and "Dagster run 0f3a" in text


def test_values_cannot_change_the_page(tmp_path):
    page = tmp_path / (validate(tmp_path).docs_page or "")
    html = page.read_text(encoding="utf-8")
    assert "<b>hand" not in html and "<i>lost" not in html
    assert "&lt;i&gt;lost" in html


def test_page_marks_warnings_and_does_not_call_them_failed(tmp_path):
    declared = suite(rows=[row_count(1), between("pixel_std", 5, blocking=False)])
    gate = validate(tmp_path, declared=declared)
    assert gate.passed and gate.docs_page is not None
    text = words(tmp_path / gate.docs_page)
    assert "warning 1 of 3 expectations failed. They do not block" in text
    assert "warning values must be greater than or equal to" in text


def test_page_of_a_good_table_says_that_all_hold(tmp_path):
    gate = validate(tmp_path, TABLE.head(1))
    assert gate.passed and gate.docs_page is not None
    assert "passed All 8 expectations hold." in words(tmp_path / gate.docs_page)


def test_pages_need_no_network(tmp_path):
    gate = validate(tmp_path)
    for page in (tmp_path / (gate.docs_page or ""), build_index(tmp_path)):
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"(src|href)\s*=\s*\"?(https?:)?//", html), page


def test_index_shows_the_latest_validation_of_each_table_and_links_its_page(tmp_path):
    validate(tmp_path)
    latest = validate(tmp_path, TABLE.head(1))
    other = evaluate(
        {"log": pl.DataFrame({"step": [1]})},
        suite(log=[row_count(2)]),
        ValidationRun(tmp_path, "category_loras", None, "0f3b"),
    )
    index = build_index(tmp_path)
    shown, _, earlier = index.read_text(encoding="utf-8").partition("<details>")
    pages = re.findall(r'href="([^"]+)"', shown)
    assert [f"data_docs/{page}" for page in pages] == [other.docs_page, latest.docs_page]
    assert all((index.parent / page).is_file() for page in pages)
    assert "1 earlier" in earlier
    assert "failed category_loras log 1 1" in words(index)


def test_index_of_a_home_without_validations_says_so(tmp_path):
    assert "Nothing has been validated yet" in words(build_index(tmp_path))


def test_a_result_being_written_does_not_break_the_index(tmp_path):
    gate = validate(tmp_path)
    (result,) = (tmp_path / "data_docs" / "validation_results").rglob("*.json")
    half = result.with_name("half.json")
    half.write_text(json.dumps({"success": True})[:5], encoding="utf-8")
    assert Path(gate.docs_page or "").name in build_index(tmp_path).read_text(encoding="utf-8")


def test_a_missing_table_has_no_page(tmp_path):
    gate = evaluate({}, CANDIDATES, ValidationRun(tmp_path, **CARRIED_OUT))
    assert not gate.passed and gate.docs_page is None


@pytest.mark.parametrize("blocked", ["data_docs", "data_docs/validations"])
def test_a_home_that_cannot_be_written_is_named(tmp_path, blocked):
    obstacle = tmp_path / blocked
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("in the way", encoding="utf-8")
    with pytest.raises(HoiError, match=f"cannot write .*{blocked}"):
        validate(tmp_path)


AT_ONCE = """
import sys
from pathlib import Path
import polars as pl
from hoi_assets.publishing.data_docs import build_index
from hoi_assets.publishing.expectations import row_count, suite, unique
from hoi_assets.publishing.validation import ValidationRun, evaluate

home, name = Path(sys.argv[1]), sys.argv[2]
declared = suite(rows=[row_count(1), unique("id")])
print("ready", flush=True)
for number in range(4):
    table = pl.DataFrame({"id": range(number + 1)})
    gate = evaluate({"rows": table}, declared, ValidationRun(home, "asset", name, f"run{number}"))
    assert gate.passed, gate.summary
    build_index(home)
    print(gate.docs_page, flush=True)
"""


@pytest.mark.slow
def test_processes_validate_on_one_home_at_the_same_time(tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(tmp_path), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    pages: list[str] = []
    for process in running:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert err == ""
        pages += out.split()[1:]
    assert len(set(pages)) == 8
    index = build_index(tmp_path)
    linked = re.findall(r'href="([^"]+)"', index.read_text(encoding="utf-8"))
    assert {f"data_docs/{page}" for page in linked} == set(pages)
    assert all((tmp_path / page).is_file() for page in pages)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def browser() -> Iterator[Any]:
    with running_chromium() as opened:
        yield opened


@pytest.mark.slow
def test_page_in_a_browser_filters_failures_and_leads_back_to_the_index(tmp_path, browser):
    gate = validate(tmp_path)
    build_index(tmp_path)
    page = browser.new_context(offline=True).new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("requestfailed", lambda request: troubles.append(request.url))
    page.goto((tmp_path / (gate.docs_page or "")).as_uri())
    assert page.get_by_text("Must have greater than or equal to").is_visible()
    page.get_by_label("failed only").check()
    assert not page.get_by_text("Must have greater than or equal to").is_visible()
    assert page.get_by_text("0.25 (1 of 4 rows)").is_visible()
    page.get_by_role("link", name="Data Docs").click()
    assert page.get_by_role("heading", name="Latest validation of each table").is_visible()
    page.get_by_role("link", name="candidate_images").click()
    assert page.get_by_role("heading", name="candidate_images[hook]: table rows").is_visible()
    assert troubles == []
