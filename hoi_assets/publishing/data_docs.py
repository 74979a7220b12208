"""Data Docs: one HTML page per validation, and an index of them, below `<home>/data_docs/`.

    index.html                                                        written by `build_index`
    validations/<asset>/<table>/<partition>.<run>/<time>/<asset>-<table>.html    one per validation
    validation_results/…the same…/<asset>-<table>.json                Great Expectations' results

Nothing here imports Great Expectations: `gx_plugins.LocalSite` writes the pages. Every file is
written whole under a name of its own and then renamed, so that processes need no lock; the folder
may be deleted at any time. Pages need no network and no server.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from hoi_assets.store.disk import replace_bytes, writing

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
SITE = Path("data_docs")
RESULTS = SITE / "validation_results"
UNPARTITIONED = "_"

Status = Literal["passed", "warning", "failed"]


@dataclass(frozen=True)
class Validation:
    """One suite's result on one table, in short.

    Attributes:
        run: Dagster's run id, or "" outside a run.
        time: when it ran, UTC, ISO 8601 to the second.
        status: failed where a blocking expectation failed; warning where only others did.
    """

    asset: str
    table: str
    partition: str | None
    run: str
    time: str
    status: Status
    evaluated: int
    unsuccessful: int


def run_name(partition: str | None, run_id: str | None) -> str:
    """Name of a validation's run: `<partition or "_">.<run id>`."""
    return f"{partition or UNPARTITIONED}.{run_id or 'no-run'}"


def page_path(key: Sequence[str]) -> Path:
    """A validation's page below the home, by Great Expectations' key; the index where empty."""
    return (
        SITE / "validations" / Path(*key[:-1]) / f"{key[-1]}.html" if key else SITE / "index.html"
    )


def result_file(home: Path, page: Path) -> Path:
    """Great Expectations' result that a validation's page shows."""
    return home / RESULTS / page.relative_to(home / SITE / "validations").with_suffix(".json")


def index_link(place: str) -> str:
    """Link from a page in a published version's folder to a place's row in the index.

    Args:
        place: `asset` or `asset/partition`.

    >>> index_link("verified_pairs/hook")
    '../../../../../data_docs/index.html#verified_pairs/hook'
    """
    up = "../" * 5  # <home>/assets/<asset>/<partition>/versions/<version>/
    return f"{up}{page_path(()).as_posix()}#{quote(place)}"


def summarise_result(result: Mapping[str, Any]) -> Validation:
    """A stored validation result (`ExpectationSuiteValidationResult` as JSON) in short."""
    asset, _, table = result["suite_name"].partition(".")
    run = result["meta"]["run_id"]
    partition, _, run_id = run["run_name"].partition(".")
    unsuccessful = [r for r in result["results"] if not r["success"]]
    blocking = any(r["expectation_config"]["severity"] == "critical" for r in unsuccessful)
    when = datetime.fromisoformat(str(run["run_time"]))
    return Validation(
        asset=asset,
        table=table,
        partition=None if partition == UNPARTITIONED else partition,
        run="" if run_id == "no-run" else run_id,
        time=when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        status="failed" if blocking else "warning" if unsuccessful else "passed",
        evaluated=len(result["results"]),
        unsuccessful=len(unsuccessful),
    )


def build_index(home: Path) -> Path:
    """Write `<home>/data_docs/index.html` from all stored results; about 1 ms each.

    Call it once after a run, and when the UI starts. Where two run at once, the last one wins; a
    validation that it missed is in the next index.

    Returns:
        The index page.

    Raises:
        HoiError: the home cannot be written.
    """
    results = home / RESULTS
    found: list[tuple[Validation, str]] = []
    for path in results.glob("*/*/*/*/*.json"):
        try:
            result = summarise_result(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            continue  # being written, or removed, this moment
        page = page_path(path.relative_to(results).with_suffix("").parts)
        found.append((result, quote(page.relative_to(SITE).as_posix())))
    found.sort(key=lambda each: (each[0].time, each[1]), reverse=True)
    latest: dict[tuple[str, str, str | None], tuple[Validation, str]] = {}
    for validation, page_url in found:
        place = (validation.asset, validation.table, validation.partition)
        latest.setdefault(place, (validation, page_url))
    newest = sorted(latest.values(), key=lambda each: (_ORDER[each[0].status], each[1]))
    urls = {url for _, url in newest}
    text = _template("data_docs_index.html.j2").render(
        latest=newest, earlier=[each for each in found if each[1] not in urls]
    )
    return write_page(home, page_path(()), text)


def write_page(home: Path, name: Path, text: str) -> Path:
    """Write a file whole: readers see the old one or the new one.

    Args:
        name: below the home.

    Raises:
        HoiError: it cannot be written.
    """
    path, temporary = home / name, home / "staging"
    with writing(path):
        temporary.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, text.encode(), temporary, durable=False, mode=0o644)
    return path


_ORDER: dict[Status, int] = {"failed": 0, "warning": 1, "passed": 2}


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(name)
