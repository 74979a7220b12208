"""The ledger knows how the rows of the version in force ended, whatever came between."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy, detailed_prompts
from hoi_assets.defs.ppv.rounds import round_plan
from hoi_assets.defs.resources import PlatformResource
from hoi_assets.publishing.asset import bind
from hoi_assets.publishing.ledger_rows import published_rows
from hoi_assets.settings import load_settings
from hoi_assets.store.disk import DiskFull
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.versions import Store
from hoi_assets_tests.pipeline_fixture import write_profile

CATEGORY = "hook"
Run = Callable[[], dg.ExecuteInProcessResult]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = load_settings(str(write_profile(tmp_path)))
    graph, assets = bind([base_prompt_taxonomy, round_plan, detailed_prompts], settings)
    platform = PlatformResource(profile=str(write_profile(tmp_path)), home=str(tmp_path / "home"))

    def once() -> dg.ExecuteInProcessResult:
        return dg.materialize(
            assets,
            partition_key=CATEGORY,
            resources={"platform": platform},
            raise_on_error=False,
        )

    once.graph = graph  # type: ignore[attr-defined]
    return once


@pytest.mark.slow
@pytest.mark.parametrize("end", [Killed, DiskFull])
def test_rows_of_a_version_that_was_published_last_thing_are_entered_by_the_next_run(
    end: type[BaseException], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Ledger.record

    def broken(*arguments: object) -> None:
        raise end(tmp_path) if end is DiskFull else end()

    monkeypatch.setattr(Ledger, "record", broken)
    with contextlib.suppress(Killed):
        run()
    monkeypatch.setattr(Ledger, "record", record)
    store = Store(tmp_path / "home")
    published = store.require("detailed_prompts", CATEGORY)
    assert store.ledger.rows().is_empty()
    assert run().success
    assert store.require("detailed_prompts", CATEGORY) == published
    rows = store.ledger.rows(stage="detailed_prompts", partition=CATEGORY)
    assert set(rows["row_id"]) == set(published.table("rows")["prompt_id"])
    assert set(rows["version"]) == {published.version} and set(rows["attempts"]) == {1}
    wanted = {row["row_id"] for row in published_rows(run.graph, store)}  # type: ignore[attr-defined]
    assert wanted == set(rows["row_id"])
