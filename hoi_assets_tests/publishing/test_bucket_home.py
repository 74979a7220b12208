"""Runs over a home in a bucket: what a folder gives, on every machine, made once."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from starlette.testclient import TestClient

from hoi_assets.cli.pages import pages_app
from hoi_assets.defs.project import Project, load_project
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import row_count, suite
from hoi_assets.publishing.staleness import status
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Staging, Store
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    POISON,
    count_call,
    small_assets,
    write_taxonomy,
)
from hoi_assets_tests.s3_server import BucketHome

CATEGORY = "hook"
OWN = ("dictionary", "prompts", "verdicts")
JOBS = (
    dg.define_asset_job("words", selection=["dictionary"]),
    dg.define_asset_job("category", selection=["prompts", "verdicts"]),
)
VERDICTS = Table(
    "rows",
    "A verdict.",
    (
        Column("prompt_id", pl.String, "Id."),
        Column("status", pl.String, "How it ended."),
        Column("reason", pl.String, "Why.", nullable=True),
    ),
    key=("prompt_id",),
)


@published_asset(
    partitions_def=dg.StaticPartitionsDefinition([CATEGORY]),
    deps=["prompts"],
    group_name="small",
    code_version="1",
    tables=[VERDICTS],
    suite=suite(rows=[row_count(1)]),
)
def verdicts(context: StageContext, staging: Staging) -> Result:
    count_call(context)
    table = context.parent("prompts").table("rows").select(*VERDICTS.schema)
    staging.write_table("rows", table)
    context.record("prompt_id", table)
    return Result()


def project_in(home: Path | str, folder: Path) -> Project:
    first = [one for one in small_assets([CATEGORY]) if one.key.to_user_string() in OWN]
    return load_project(str(folder / "small.yaml"), home, [*first, verdicts], JOBS)


def project_on(home: BucketHome, folder: Path, machine: str) -> Project:
    home.use(machine)
    return project_in(home.url, folder)


def run(project: Project, instance: dg.DagsterInstance, keys: Sequence[str] = (CATEGORY,)) -> str:
    return run_pipelines(project, instance, keys, log=lambda line: None).table()


def states(project: Project) -> dict[str, str]:
    platform = project.platform
    found = status(project.graph, platform.settings, platform.store)
    return {f"{one.asset}/{one.partition or '_'}": one.state for one in found}


def computed(project: Project) -> list[str]:
    path = project.platform.store.home / "calls.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def versions(store: Store) -> dict[str, str]:
    return {one.name: one.version for one in store.all_current()}


def test_a_second_machine_finds_all_that_the_first_made_and_its_versions_are_a_folders(
    bucket_home: BucketHome, folder: Path, instance: dg.DagsterInstance
) -> None:
    here = project_on(bucket_home, folder, "a")
    run(here, instance)
    in_folder = project_in(folder / "home", folder)
    run(in_folder, instance)
    assert versions(here.platform.store) == versions(in_folder.platform.store)
    there = project_on(bucket_home, folder, "b")
    assert set(states(there).values()) == {"fresh"}
    assert "unchanged" in run(there, instance)
    assert len(computed(here)) == len(OWN) and computed(there) == []
    # The ledger is each machine's own: it healed from the published versions.
    columns = ["stage", "partition", "row_id", "status", "version"]
    rows = [
        one.platform.store.ledger.rows()
        .filter(pl.col("stage") == "verdicts")
        .select(columns)
        .sort(columns)
        for one in (here, there, in_folder)
    ]
    assert rows[0].equals(rows[1]) and rows[0].equals(rows[2]) and rows[0].height == len(GOOD)


def test_failed_gate_blocks_on_every_machine_and_what_was_before_stays_in_force(
    bucket_home: BucketHome, folder: Path, instance: dg.DagsterInstance
) -> None:
    here = project_on(bucket_home, folder, "a")
    run(here, instance)
    before = versions(here.platform.store)
    write_taxonomy(folder / "taxonomy", {"hook": POISON})
    there = project_on(bucket_home, folder, "b")
    run(there, instance)
    assert states(here)["prompts/hook"] == states(there)["prompts/hook"] == "blocked"
    assert versions(project_on(bucket_home, folder, "c").platform.store) == before
    assert any("prompts/hook" in key for key in bucket_home.keys("quarantine/"))
    write_taxonomy(folder / "taxonomy", {"hook": GOOD})
    run(there, instance)
    assert set(states(here).values()) == {"fresh"}


def test_half_of_a_version_is_noticed_and_made_whole_by_the_next_run(
    bucket_home: BucketHome, folder: Path, instance: dg.DagsterInstance
) -> None:
    here = project_on(bucket_home, folder, "a")
    run(here, instance)
    before = versions(here.platform.store)
    (key,) = bucket_home.keys(f"assets/prompts/hook/versions/{before['prompts/hook']}")
    bucket_home.delete(key)
    there = project_on(bucket_home, folder, "b")
    assert not there.platform.store.require("prompts", "hook").is_stored()
    assert states(there)["prompts/hook"] == "stale"
    run(there, instance)
    assert computed(there) == ["prompts hook"]
    assert bucket_home.keys(key) == [key]
    assert set(states(here).values()) == {"fresh"}
    assert versions(here.platform.store) == before


def test_pages_of_one_machine_are_served_on_another(
    bucket_home: BucketHome, folder: Path, instance: dg.DagsterInstance
) -> None:
    here = project_on(bucket_home, folder, "a")
    run(here, instance)
    store = here.platform.store
    with store.stage("evaluation_report") as staging:
        staging.write_text("report.html", "<p>report</p>")
        report = store.publish(staging, {}, None)
    page = report.path.relative_to(store.home) / "report.html"
    bucket_home.use("b")
    client = TestClient(pages_app(bucket_home.url))
    assert client.get(f"/{page}").text == "<p>report</p>"
    assert client.get(f"/{page.with_name('other.html')}").status_code == 404
    index = client.get("/data_docs/index.html")
    assert "prompts" in index.text and "hook" in index.text
    (shown,) = [key for key in bucket_home.keys("data_docs/validations/prompts/") if "hook" in key]
    assert client.get(f"/{shown}").status_code == 200
    bucket_home.write(report.remote.key(report.path / "report.html"), b"<p>other</p>")  # type: ignore[union-attr]
    bucket_home.use("c")
    refused = TestClient(pages_app(bucket_home.url)).get(f"/{page}")
    assert refused.status_code == 500 and "was altered" in refused.text


def test_stale_asks_the_bucket_once_for_all_pointers(
    bucket_home: BucketHome,
    folder: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(project_on(bucket_home, folder, "a"), instance)
    project = project_on(bucket_home, folder, "b")
    remote = project.platform.store.remote
    assert remote is not None
    states(project)
    asked: list[str] = []
    real = type(remote.bucket).get

    def counted(bucket: object, key: str, known: bytes | None = None) -> object:
        asked.append(key)
        return real(bucket, key, known)  # type: ignore[arg-type]

    monkeypatch.setattr(type(remote.bucket), "get", counted)
    states(project)
    assert asked == []
