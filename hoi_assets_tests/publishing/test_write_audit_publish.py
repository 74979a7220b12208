"""Write, audit, publish, by way of real Dagster runs over a small line of real stages."""

import base64
import io
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import AssetCheckKey, AssetKey
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from PIL import Image as PILImage

from hoi_assets.defs.project import Project, load_project
from hoi_assets.errors import HoiError
from hoi_assets.publishing.asset import FORCE_TAG, is_published_asset, published_asset, stage_of
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import row_count, suite
from hoi_assets.publishing.graph import Graph
from hoi_assets.publishing.staleness import Status, status
from hoi_assets.store.versions import Staging
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    POISON,
    calls,
    small_assets,
    small_project,
    write_profile,
    write_taxonomy,
)

ANY_ROWS = suite(rows=[row_count()])


def run(
    project: Project,
    instance: dg.DagsterInstance,
    job: str,
    category: str | None = None,
    **tags: str,
) -> dg.ExecuteInProcessResult:
    return project.pipelines.resolve_job_def(job).execute_in_process(
        partition_key=category, instance=instance, raise_on_error=False, tags=tags
    )


def run_all(project: Project, instance: dg.DagsterInstance, *categories: str) -> None:
    """Head, the categories' chains, the dataset and its model: each a Dagster run of its own."""
    run(project, instance, "words")
    for category in categories:
        run(project, instance, "category", category)
    run(project, instance, "dataset_and_model")


def in_dataset(project: Project) -> set[str]:
    return set(project.platform.store.require("dataset").table("rows")["category"])


def trained_on(project: Project) -> list[str]:
    return project.platform.store.require("model").json("weights")


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None and data.description is not None
    return data.description


def checks(instance: dg.DagsterInstance, asset: str) -> list[tuple[str | None, str]]:
    found = instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(AssetKey(asset), "gate"), limit=100
    )
    return [
        (record.partition, record.status.value)
        for record in reversed(found)
        if record.status != AssetCheckExecutionRecordStatus.PLANNED
    ]


def states(project: Project) -> dict[tuple[str, str | None], Status]:
    platform = project.platform
    found = status(project.graph, platform.settings, platform.store)
    return {(one.asset, one.partition): one for one in found}


def test_failed_gate_keeps_category_out_of_dataset_and_model_across_runs(folder, instance):
    write_taxonomy(folder / "taxonomy", {"tripod": POISON})
    project = small_project(folder)
    run_all(project, instance, "hook", "tripod", "worn")
    assert in_dataset(project) == {"hook", "worn"}
    assert trained_on(project) == ["hook", "worn"]
    (event,) = instance.fetch_materializations(AssetKey("dataset"), limit=1).records
    assert event.asset_materialization.metadata["missing"].value == "tripod"


def test_last_good_version_stays_in_force_when_a_later_one_fails(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook", "worn")
    good = project.platform.store.require("prompts", "worn")
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    assert not run(project, instance, "category", "worn").success
    run(project, instance, "dataset_and_model")
    assert project.platform.store.require("prompts", "worn").version == good.version
    assert in_dataset(project) == {"hook", "worn"}
    assert states(project)["prompts", "worn"].state == "blocked"
    assert states(project)["dataset", None].state == "fresh"


def test_rejected_output_is_kept_aside_with_the_evidence(folder, instance):
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    project = small_project(folder)
    run(project, instance, "words")
    result = run(project, instance, "category", "worn")
    told = failure(result)
    assert "expect_column_values_to_be_unique on rows.prompt" in told
    assert "3 of 3 rows fail" in told
    (evidence,) = (folder / "home" / "quarantine").rglob("evidence.json")
    assert "expect_column_values_to_be_unique" in evidence.read_text(encoding="utf-8")
    kept = pl.read_parquet(evidence.parent / "content" / "rows.parquet")
    assert kept["prompt"].to_list() == POISON
    assert project.platform.store.current("prompts", "worn") is None
    assert "pictures worn" not in calls(folder)


def test_check_results_are_stored_per_partition(folder, instance):
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    project = small_project(folder)
    run(project, instance, "words")
    run(project, instance, "category", "hook")
    run(project, instance, "category", "worn")
    assert checks(instance, "prompts") == [("hook", "SUCCEEDED"), ("worn", "FAILED")]
    assert checks(instance, "pictures") == [("hook", "SUCCEEDED")]
    assert checks(instance, "dictionary") == [(None, "SUCCEEDED")]
    made = instance.get_materialized_partitions(AssetKey("prompts"))
    assert made == {"hook"}


def test_check_targets_the_version_it_judged(folder, instance):
    project = small_project(folder)
    run(project, instance, "words")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(AssetKey("dictionary"), "gate"), limit=1
    )
    assert record.event is not None
    target = record.event.dagster_event.asset_check_evaluation_data.target_materialization_data
    (event,) = instance.fetch_materializations(AssetKey("dictionary"), limit=1).records
    assert target.storage_id == event.storage_id


def test_data_version_is_the_hash_of_the_content(folder, instance):
    project = small_project(folder)
    run(project, instance, "words")
    (event,) = instance.fetch_materializations(AssetKey("dictionary"), limit=1).records
    published = project.platform.store.require("dictionary")
    assert event.asset_materialization.tags["dagster/data_version"] == published.version
    metadata = event.asset_materialization.metadata
    assert metadata["version"].value == published.version
    assert metadata["path"].value == str(published.path)
    assert metadata["dagster/row_count"].value == 3


def test_unchanged_inputs_are_not_recomputed_but_told_again(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook")
    before = calls(folder)
    run_all(small_project(folder), instance, "hook")
    assert calls(folder) == before
    first, second = (
        record.asset_materialization
        for record in instance.fetch_materializations(
            dg.AssetRecordsFilter(AssetKey("pictures"), asset_partitions=["hook"]),
            limit=2,
            ascending=True,
        ).records
    )
    assert [m.metadata["unchanged"].value for m in (first, second)] == [False, True]
    assert first.tags["dagster/data_version"] == second.tags["dagster/data_version"]
    assert first.metadata["sheet"] == second.metadata["sheet"]
    assert checks(instance, "pictures") == [("hook", "SUCCEEDED")] * 2


def test_contact_sheet_in_the_metadata_decodes_to_the_picture(folder, instance):
    project = small_project(folder)
    run(project, instance, "words")
    run(project, instance, "category", "hook")
    (record,) = instance.fetch_materializations(AssetKey("pictures"), limit=1).records
    text = record.asset_materialization.metadata["sheet"].value
    code = re.search(r"base64,([^)]+)\)", text)
    assert code
    shown = PILImage.open(io.BytesIO(base64.b64decode(code.group(1))))
    assert shown.size == (32, 16)
    assert shown.getpixel((3, 3)) == (255, 0, 0)


def test_changed_parent_with_equal_content_stops_the_change_there(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook")
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    run(project, instance, "category", "hook")
    write_taxonomy(folder / "taxonomy", {"hook": GOOD})
    before = calls(folder)
    run_all(project, instance, "hook")
    # Prompts were made again, came out as they were at first, and so did what follows.
    assert calls(folder)[len(before) :] == ["prompts hook", "pictures hook"]
    assert states(project)["model", None].state == "fresh"


def test_force_computes_again(folder, instance):
    project = small_project(folder)
    run(project, instance, "words")
    run(project, instance, "words", **{FORCE_TAG: "true"})
    assert calls(folder) == ["dictionary _"] * 2
    job = project.pipelines.resolve_job_def("words")
    job.execute_in_process(
        instance=instance, run_config={"ops": {"dictionary": {"config": {"force": True}}}}
    )
    assert calls(folder) == ["dictionary _"] * 3


def test_rows_that_failed_are_tried_again_though_nothing_changed(folder, instance):
    write_profile(folder, gates={"min_prompts": 2, "max_failed_share": 0.5})
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "unlucky"]})
    project = small_project(folder)
    run(project, instance, "words")
    run(project, instance, "category", "hook")
    ledger = project.platform.store.ledger
    assert ledger.rows(stage="prompts", status="failed")["row_id"].to_list() == ["hook-3"]
    now = states(project)["prompts", "hook"]
    assert (now.state, now.failed_rows) == ("stale", 1)
    run(project, instance, "category", "hook")
    assert calls(folder).count("prompts hook") == 2
    assert ledger.rows(stage="prompts", status="failed")["attempts"].to_list() == [2]


def test_stricter_gate_judges_the_version_in_force_without_making_it_again(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook")
    before = calls(folder)
    write_profile(folder, gates={"min_prompts": 3})
    project = small_project(folder)
    assert run(project, instance, "category", "hook").success
    write_profile(folder, gates={"min_prompts": 4})
    project = small_project(folder)
    assert "observed 3" in failure(run(project, instance, "category", "hook"))
    assert calls(folder) == before


def test_unpublished_parent_is_named_with_the_remedy(folder, instance):
    project = small_project(folder)
    told = failure(run(project, instance, "category", "hook"))
    assert "dictionary" in told and "materialise dictionary" in told
    run(project, instance, "words")
    told = failure(run(project, instance, "dataset_and_model"))
    assert "no partition" in told or "pictures is not published for any partition" in told


HOOK = dg.StaticPartitionsDefinition(["hook"])


def project_of(folder: Path, *assets: dg.AssetsDefinition) -> Project:
    """A project of these assets alone, all in the job `job`."""
    names = [asset.key.to_user_string() for asset in assets if is_published_asset(asset)]
    return load_project(
        str(folder / "small.yaml"),
        folder / "home",
        assets,
        [dg.define_asset_job("job", selection=names)],
    )


def test_exception_in_the_gate_is_a_failed_check_with_evidence(folder, instance):
    @published_asset(code_version="1", suite=ANY_ROWS)
    def torn(context: StageContext, staging: Staging) -> Result:
        staging.write_bytes("rows.parquet", b"not a table")
        return Result()

    project = project_of(folder, torn)
    result = run(project, instance, "job")
    assert "the gate runs" in failure(result)
    assert checks(instance, "torn") == [(None, "FAILED")]
    assert project.platform.store.current("torn") is None
    assert len(list((folder / "home" / "quarantine").rglob("evidence.json"))) == 1


def test_exception_in_a_stage_publishes_nothing_and_is_shown_as_blocked(folder, instance):
    @published_asset(code_version="1", suite=ANY_ROWS)
    def broken(context: StageContext, staging: Staging) -> Result:
        staging.write_text("half", "half")
        raise ZeroDivisionError("division by zero")

    project = project_of(folder, broken)
    assert not run(project, instance, "job").success
    assert project.platform.store.current("broken") is None
    assert list((folder / "home" / "staging").iterdir()) == []
    broken_now = states(project)["broken", None]
    assert (broken_now.state, broken_now.reasons) == (
        "blocked",
        ("ZeroDivisionError: division by zero",),
    )


def test_a_warning_is_shown_and_does_not_block(folder, instance):
    wish = replace(row_count(5), blocking=False)

    @published_asset(code_version="1", suite=suite(rows=[wish]))
    def meagre(context: StageContext, staging: Staging) -> Result:
        staging.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    project = project_of(folder, meagre)
    result = run(project, instance, "job")
    assert result.success
    assert project.platform.store.current("meagre") is not None
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_tables_given_for_audit_alone_are_judged_and_not_published(folder, instance):
    def audited(context: StageContext, staging: Staging) -> Result:
        staging.write_text("model.bin", "weights")
        return Result(audit={"quality": pl.DataFrame({"auc": [0.5]})})

    strict = published_asset(code_version="1", suite=suite(quality=[row_count(2)]))(audited)
    project = project_of(folder, strict)
    assert "observed 1" in failure(run(project, instance, "job"))
    project = project_of(
        folder, published_asset(code_version="1", suite=suite(quality=[row_count(1)]))(audited)
    )
    assert run(project, instance, "job").success
    files = [p.name for p in project.platform.store.require("audited").path.iterdir()]
    assert files == ["model.bin"]


def test_two_runs_of_one_category_never_compute_at_once(folder):
    inside: list[int] = []

    @published_asset(partitions_def=HOOK, code_version="1", suite=ANY_ROWS)
    def slow(context: StageContext, staging: Staging) -> Result:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.3)
        inside.pop()
        staging.write_text("done", context.partition_key)
        staging.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    outcomes: list[bool] = []

    def go() -> None:
        project = project_of(folder, slow)
        with dg.DagsterInstance.ephemeral() as own:
            outcomes.append(run(project, own, "job", "hook", **{FORCE_TAG: "true"}).success)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 3


def test_a_waiting_run_finds_what_the_other_made(folder):
    made: list[int] = []

    @published_asset(code_version="1", suite=ANY_ROWS)
    def slow(context: StageContext, staging: Staging) -> Result:
        made.append(1)
        time.sleep(0.3)
        staging.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    def go() -> None:
        project = project_of(folder, slow)
        with dg.DagsterInstance.ephemeral() as own:
            run(project, own, "job")

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


# --- what is out of date -----------------------------------------------------------------------


def test_status_tells_changed_inputs_in_words_and_what_follows(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook", "worn")
    assert {s.state for key, s in states(project).items() if key[0] in ("prompts", "dataset")} == {
        "fresh"
    }
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    found = states(project)
    assert found["prompts", "hook"].state == "stale"
    assert "external inputs changed" in found["prompts", "hook"].reasons[0]
    assert found["pictures", "hook"].reasons == ("prompts[hook] is stale",)
    assert found["dataset", None].reasons == ("pictures[hook] is stale",)
    assert found["prompts", "worn"].state == "fresh"
    assert found["evaluation", "hook"].state == "missing"


def test_status_sees_settings_and_code_version(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook")
    write_profile(folder, prompter={"seed": 7})
    assert "settings changed" in states(small_project(folder))["prompts", "hook"].reasons[0]


def test_a_category_never_made_leaves_the_fan_in_fresh(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook")
    assert states(project)["dataset", None].state == "fresh"


def test_category_taken_out_of_the_taxonomy_leaves_the_dataset(folder, instance):
    project = small_project(folder)
    run_all(project, instance, "hook", "worn")
    (folder / "taxonomy" / "categories" / "worn.yaml").unlink()
    project = small_project(folder)
    assert states(project)["dataset", None].state == "stale"
    run(project, instance, "dataset_and_model")
    assert in_dataset(project) == {"hook"}


def test_version_deleted_by_hand_is_made_again(folder, instance):
    project = small_project(folder)
    run(project, instance, "words")
    shutil.rmtree(project.platform.store.require("dictionary").path)
    assert run(project, instance, "words").success
    assert project.platform.store.require("dictionary").table("rows").height == 3


# --- the graph ---------------------------------------------------------------------------------

SCENARIO = dg.StaticPartitionsDefinition(["functional", "compositional", "multi_subject"])


@published_asset(partitions_def=SCENARIO, code_version="1", suite=ANY_ROWS)
def drawings(context: StageContext, staging: Staging) -> Result:
    staging.write_table("rows", pl.DataFrame({"scenario": [context.partition_key]}))
    return Result()


@published_asset(deps=["drawings", "dictionary"], code_version="1", suite=ANY_ROWS)
def card(context: StageContext, staging: Staging) -> Result:
    seen = list(context.published("drawings"))
    missing = context.missing("drawings")
    staging.write_table("rows", pl.DataFrame({"seen": seen, "missing": [len(missing)] * len(seen)}))
    return Result()


def test_a_fan_in_reads_what_is_published_and_names_the_rest(folder, instance):
    dictionary = small_assets(["hook"])[-1]
    project = load_project(
        str(folder / "small.yaml"),
        folder / "home",
        [drawings, card, dictionary],
        [
            dg.define_asset_job("scenario", selection=["drawings"]),
            dg.define_asset_job("summary", selection=["dictionary", "card"]),
        ],
    )
    assert run(project, instance, "scenario", "functional").success
    assert run(project, instance, "summary").success
    made = project.platform.store.require("card").table("rows")
    assert made.to_dicts() == [{"seen": "functional", "missing": 2}]


def small_stages():
    return [stage_of(asset) for asset in small_assets(["hook"])]


def test_a_graph_that_cannot_run_is_refused():
    with pytest.raises(HoiError, match="unresolved or cyclic"):
        Graph(small_stages()[:1])
    with pytest.raises(HoiError, match="two assets"):
        Graph([*small_stages(), stage_of(small_assets(["hook"])[0])])
    with pytest.raises(HoiError, match="no expectation suite for drawings"):
        Graph([replace(stage_of(drawings), suite=())])


def test_upstream_follows_what_is_required_and_downstream_all_that_reads():
    graph = Graph(small_stages())
    assert graph.upstream(["dataset"]) == {"dataset", "pictures", "prompts", "dictionary"}
    assert graph.downstream(["model"]) == {"model", "evaluation", "report"}


def test_an_asset_reads_only_what_it_declares(folder):
    @published_asset(code_version="1", suite=ANY_ROWS)
    def sly(context: StageContext, staging: Staging) -> Result:
        context.parent("dictionary")
        return Result()

    project = project_of(folder, sly)
    platform, stage = project.platform, project.graph["sly"]
    context = project.graph.context(stage, None, platform.settings, platform.store)
    with platform.store.stage("sly") as staging, pytest.raises(TypeError, match="not among"):
        stage(context, staging)


# --- what the decorator passes on --------------------------------------------------------------


def test_every_keyword_of_dagsters_asset_is_passed_on_unchanged():
    @published_asset(
        code_version="1",
        suite=ANY_ROWS,
        key_prefix=None,
        group_name="pictures",
        kinds={"torch"},
        owners=["team:vision"],
        tags={"cost": "high"},
        pool="gpu",
        metadata={"note": "kept"},
        automation_condition=dg.AutomationCondition.eager(),
        retry_policy=dg.RetryPolicy(max_retries=2),
        op_tags={"hoi/test": "1"},
        check_specs=[dg.AssetCheckSpec("by_hand", asset="kept")],
    )
    def kept(context: StageContext, staging: Staging) -> Result:
        """What people read in the UI."""
        return Result()

    (spec,) = kept.specs
    assert spec.group_name == "pictures" and spec.owners == ["team:vision"]
    assert spec.kinds == {"torch"} and spec.tags["cost"] == "high"
    assert spec.automation_condition == dg.AutomationCondition.eager()
    assert spec.description == "What people read in the UI."
    assert spec.metadata["note"] == "kept"
    assert kept.op.pool == "gpu" and kept.op.tags["hoi/test"] == "1"
    assert kept.op.retry_policy == dg.RetryPolicy(max_retries=2)
    assert {check.name for check in kept.check_specs} == {"gate", "by_hand"}


def test_code_references_link_to_the_assets_own_function():
    (spec,) = drawings.specs
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert reference.file_path == __file__
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert "published_asset" in lines[reference.line_number - 1]
    assert "def drawings" in lines[reference.line_number]


def test_plain_assets_stand_beside_published_ones(folder, instance):
    @dg.asset(deps=["drawings"])
    def plain() -> None: ...

    project = project_of(folder, drawings, plain)
    assert [stage.name for stage in project.graph.stages] == ["drawings"]
    keys = {key for asset in project.pipelines.assets or () for key in asset.keys}  # type: ignore[union-attr]
    assert keys == {AssetKey("drawings"), AssetKey("plain")}
    job = project.pipelines.resolve_job_def("__ASSET_JOB")
    assert job.execute_in_process(
        instance=instance, partition_key="functional", asset_selection=[AssetKey("plain")]
    ).success


def test_pool_is_asked_for_on_a_gpu_only(folder):
    @published_asset(code_version="1", suite=ANY_ROWS, pool="gpu")
    def trained(context: StageContext, staging: Staging) -> Result:
        return Result()

    def pool() -> str | None:
        (asset,) = project_of(folder, trained).assets
        return asset.op.pool

    assert pool() is None
    write_profile(folder, device="cuda")
    assert pool() == "gpu"


def test_code_version_shown_to_dagster_follows_settings_and_gate(folder):
    def shown() -> dict[str, str | None]:
        project = small_project(folder)
        return {
            spec.key.to_user_string(): spec.code_version for a in project.assets for spec in a.specs
        }

    before = shown()
    write_profile(folder, prompter={"seed": 7})
    after = shown()
    assert {name for name in before if before[name] != after[name]} == {"prompts"}
    write_profile(folder, prompter={"seed": 7}, gates={"min_prompts": 3})
    assert {name for name in after if after[name] != shown()[name]} == {"prompts"}
