"""Write, audit, publish, by way of real Dagster runs over a small line of real stages."""

import base64
import io
import re
import shutil
import threading
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import AssetCheckKey, AssetKey
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from PIL import Image as PILImage

from hoi_assets.definitions import build_line
from hoi_assets.defs.automation import Line
from hoi_assets.errors import HoiError
from hoi_assets.publishing.asset import FORCE_TAG
from hoi_assets.publishing.expectations import Suite, measure, row_count, suite
from hoi_assets.publishing.graph import Graph, Status
from hoi_assets.publishing.stage import Result, Stage, Work, stage
from hoi_assets.store.versions import Staging
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    POISON,
    STAGES,
    SUITES,
    calls,
    dataset,
    dictionary,
    pictures,
    prompts,
    small_line,
    write_profile,
    write_taxonomy,
)


def run(
    line: Line, instance: dg.DagsterInstance, job: str, category: str | None = None, **tags: str
) -> dg.ExecuteInProcessResult:
    return line.defs.resolve_job_def(job).execute_in_process(
        partition_key=category, instance=instance, raise_on_error=False, tags=tags
    )


def run_all(line: Line, instance: dg.DagsterInstance, *categories: str) -> None:
    """Head, the categories' chains, the dataset and its model: each a Dagster run of its own."""
    run(line, instance, "line_head")
    for category in categories:
        run(line, instance, "hand_pose_line", category)
    run(line, instance, "line_dataset")


def in_dataset(line: Line) -> set[str]:
    return set(line.platform.store.require("dataset").table("rows")["category"])


def trained_on(line: Line) -> list[str]:
    return line.platform.store.require("model").json("weights")


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


def states(line: Line) -> dict[tuple[str, str | None], Status]:
    platform = line.platform
    found = line.graph.status(platform.settings, platform.store, platform.partition_keys)
    return {(status.stage, status.partition): status for status in found}


def test_failed_gate_keeps_category_out_of_dataset_and_model_across_runs(folder, instance):
    write_taxonomy(folder / "taxonomy", {"tripod": POISON})
    line = small_line(folder)
    run_all(line, instance, "hook", "tripod", "worn")
    assert in_dataset(line) == {"hook", "worn"}
    assert trained_on(line) == ["hook", "worn"]
    (event,) = instance.fetch_materializations(AssetKey("dataset"), limit=1).records
    assert event.asset_materialization.metadata["missing"].value == "tripod"


def test_last_good_version_stays_in_force_when_a_later_one_fails(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook", "worn")
    good = line.platform.store.require("prompts", "worn")
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    assert not run(line, instance, "hand_pose_line", "worn").success
    run(line, instance, "line_dataset")
    assert line.platform.store.require("prompts", "worn").version == good.version
    assert in_dataset(line) == {"hook", "worn"}
    assert states(line)["prompts", "worn"].state == "held"
    assert states(line)["dataset", None].state == "fresh"


def test_rejected_output_is_kept_aside_with_the_evidence(folder, instance):
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    line = small_line(folder)
    run(line, instance, "line_head")
    result = run(line, instance, "hand_pose_line", "worn")
    told = failure(result)
    assert "expect_column_values_to_be_unique on rows.prompt" in told
    assert "3 of 3 rows fail" in told
    (evidence,) = (folder / "home" / "quarantine").rglob("evidence.json")
    assert "expect_column_values_to_be_unique" in evidence.read_text(encoding="utf-8")
    kept = pl.read_parquet(evidence.parent / "content" / "rows.parquet")
    assert kept["prompt"].to_list() == POISON
    assert line.platform.store.current("prompts", "worn") is None
    assert "pictures worn" not in calls(folder)


def test_check_results_are_stored_per_partition(folder, instance):
    write_taxonomy(folder / "taxonomy", {"worn": POISON})
    line = small_line(folder)
    run(line, instance, "line_head")
    run(line, instance, "hand_pose_line", "hook")
    run(line, instance, "hand_pose_line", "worn")
    assert checks(instance, "prompts") == [("hook", "SUCCEEDED"), ("worn", "FAILED")]
    assert checks(instance, "pictures") == [("hook", "SUCCEEDED")]
    assert checks(instance, "dictionary") == [(None, "SUCCEEDED")]
    made = instance.get_materialized_partitions(AssetKey("prompts"))
    assert made == {"hook"}


def test_check_targets_the_version_it_judged(folder, instance):
    line = small_line(folder)
    run(line, instance, "line_head")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(AssetKey("dictionary"), "gate"), limit=1
    )
    assert record.event is not None
    target = record.event.dagster_event.asset_check_evaluation_data.target_materialization_data
    (event,) = instance.fetch_materializations(AssetKey("dictionary"), limit=1).records
    assert target.storage_id == event.storage_id


def test_data_version_is_the_hash_of_the_content(folder, instance):
    line = small_line(folder)
    run(line, instance, "line_head")
    (event,) = instance.fetch_materializations(AssetKey("dictionary"), limit=1).records
    published = line.platform.store.require("dictionary")
    assert event.asset_materialization.tags["dagster/data_version"] == published.version
    metadata = event.asset_materialization.metadata
    assert metadata["version"].value == published.version
    assert metadata["path"].value == str(published.path)
    assert metadata["dagster/row_count"].value == 3


def test_unchanged_inputs_are_not_recomputed_but_told_again(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook")
    before = calls(folder)
    run_all(small_line(folder), instance, "hook")
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
    line = small_line(folder)
    run(line, instance, "line_head")
    run(line, instance, "hand_pose_line", "hook")
    (record,) = instance.fetch_materializations(AssetKey("pictures"), limit=1).records
    text = record.asset_materialization.metadata["sheet"].value
    code = re.search(r"base64,([^)]+)\)", text)
    assert code
    shown = PILImage.open(io.BytesIO(base64.b64decode(code.group(1))))
    assert shown.size == (32, 16)
    assert shown.getpixel((3, 3)) == (255, 0, 0)


def test_changed_parent_with_equal_content_stops_the_change_there(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook")
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    run(line, instance, "hand_pose_line", "hook")
    write_taxonomy(folder / "taxonomy", {"hook": GOOD})
    before = calls(folder)
    run_all(line, instance, "hook")
    # Prompts were made again, came out as they were at first, and so did what follows.
    assert calls(folder)[len(before) :] == ["prompts hook", "pictures hook"]
    assert states(line)["model", None].state == "fresh"


def test_force_computes_again(folder, instance):
    line = small_line(folder)
    run(line, instance, "line_head")
    run(line, instance, "line_head", **{FORCE_TAG: "true"})
    assert calls(folder) == ["dictionary _"] * 2
    job = line.defs.resolve_job_def("line_head")
    job.execute_in_process(
        instance=instance, run_config={"ops": {"dictionary": {"config": {"force": True}}}}
    )
    assert calls(folder) == ["dictionary _"] * 3


def test_rows_that_failed_are_tried_again_though_nothing_changed(folder, instance):
    write_profile(folder, gates={"min_prompts": 2, "max_failed_share": 0.5})
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "unlucky"]})
    line = small_line(folder)
    run(line, instance, "line_head")
    run(line, instance, "hand_pose_line", "hook")
    ledger = line.platform.store.ledger
    assert ledger.rows(stage="prompts", status="failed")["row_id"].to_list() == ["hook-3"]
    status = states(line)["prompts", "hook"]
    assert (status.state, status.failed_rows) == ("stale", 1)
    run(line, instance, "hand_pose_line", "hook")
    assert calls(folder).count("prompts hook") == 2
    assert ledger.rows(stage="prompts", status="failed")["attempts"].to_list() == [2]


def test_stricter_gate_judges_the_version_in_force_without_making_it_again(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook")
    before = calls(folder)
    write_profile(folder, gates={"min_prompts": 3})
    line = small_line(folder)
    assert run(line, instance, "hand_pose_line", "hook").success
    write_profile(folder, gates={"min_prompts": 4})
    line = small_line(folder)
    assert "observed 3" in failure(run(line, instance, "hand_pose_line", "hook"))
    assert calls(folder) == before


def test_unpublished_parent_is_named_with_the_remedy(folder, instance):
    line = small_line(folder)
    told = failure(run(line, instance, "hand_pose_line", "hook"))
    assert "dictionary" in told and "materialise dictionary" in told
    run(line, instance, "line_head")
    told = failure(run(line, instance, "line_dataset"))
    assert "pictures is not published for any category" in told


def line_of(folder: Path, *stages: Stage, suites: dict[str, Suite]) -> Line:
    return build_line(str(folder / "small.yaml"), folder / "home", stages, suites)


def test_exception_in_the_gate_is_a_failed_check_with_evidence(folder, instance):
    @stage("torn", code_version="1")
    def torn(work: Work, out: Staging) -> Result:
        out.write_bytes("rows.parquet", b"not a table")
        return Result()

    line = line_of(folder, torn, suites={"torn": suite(rows=[row_count()])})
    result = run(line, instance, "line_head")
    assert "the gate runs" in failure(result)
    assert checks(instance, "torn") == [(None, "FAILED")]
    assert line.platform.store.current("torn") is None
    assert len(list((folder / "home" / "quarantine").rglob("evidence.json"))) == 1


def test_exception_in_a_stage_publishes_nothing_and_is_shown_as_held(folder, instance):
    @stage("broken", code_version="1")
    def broken(work: Work, out: Staging) -> Result:
        out.write_text("half", "half")
        raise ZeroDivisionError("division by zero")

    line = line_of(folder, broken, suites={"broken": suite(rows=[row_count()])})
    assert not run(line, instance, "line_head").success
    assert line.platform.store.current("broken") is None
    assert list((folder / "home" / "staging").iterdir()) == []
    status = states(line)["broken", None]
    assert (status.state, status.reasons) == ("held", ("ZeroDivisionError: division by zero",))


def test_a_warning_is_told_and_does_not_hold_back(folder, instance):
    @stage("meagre", code_version="1")
    def meagre(work: Work, out: Staging) -> Result:
        out.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    wish = measure("rows", "count(*)", 5, blocking=False)
    line = line_of(folder, meagre, suites={"meagre": suite(rows=[wish])})
    result = run(line, instance, "line_head")
    assert result.success
    assert line.platform.store.current("meagre") is not None
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_tables_given_for_audit_alone_are_judged_and_not_published(folder, instance):
    @stage("audited", code_version="1")
    def audited(work: Work, out: Staging) -> Result:
        out.write_text("model.bin", "weights")
        return Result(audit={"quality": pl.DataFrame({"auc": [0.5]})})

    line = line_of(folder, audited, suites={"audited": suite(quality=[row_count(2)])})
    assert "observed 1" in failure(run(line, instance, "line_head"))
    line = line_of(folder, audited, suites={"audited": suite(quality=[row_count(1)])})
    assert run(line, instance, "line_head").success
    files = [p.name for p in line.platform.store.require("audited").path.iterdir()]
    assert files == ["model.bin"]


def test_two_runs_of_one_category_never_compute_at_once(folder):
    inside: list[int] = []

    @stage("slow", partitions="hand_pose", code_version="1")
    def slow(work: Work, out: Staging) -> Result:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.3)
        inside.pop()
        out.write_text("done", work.category)
        out.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    outcomes: list[bool] = []

    def go() -> None:
        line = line_of(folder, slow, suites={"slow": suite(rows=[row_count()])})
        with dg.DagsterInstance.ephemeral() as own:
            outcomes.append(run(line, own, "hand_pose_line", "hook", **{FORCE_TAG: "true"}).success)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 3


def test_a_waiting_run_finds_what_the_other_made(folder):
    made: list[int] = []

    @stage("slow", code_version="1")
    def slow(work: Work, out: Staging) -> Result:
        made.append(1)
        time.sleep(0.3)
        out.write_table("rows", pl.DataFrame({"n": [1]}))
        return Result()

    def go() -> None:
        line = line_of(folder, slow, suites={"slow": suite(rows=[row_count()])})
        with dg.DagsterInstance.ephemeral() as own:
            run(line, own, "line_head")

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


# --- what is out of date -----------------------------------------------------------------------


def test_status_tells_changed_inputs_in_words_and_what_follows(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook", "worn")
    assert {s.state for key, s in states(line).items() if key[0] in ("prompts", "dataset")} == {
        "fresh"
    }
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    found = states(line)
    assert found["prompts", "hook"].state == "stale"
    assert "stated changed" in found["prompts", "hook"].reasons[0]
    assert found["pictures", "hook"].reasons == ("prompts[hook] is stale",)
    assert found["dataset", None].reasons == ("pictures[hook] is stale",)
    assert found["prompts", "worn"].state == "fresh"
    assert found["evaluation", "hook"].state == "missing"


def test_status_sees_settings_and_code_version(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook")
    write_profile(folder, prompter={"seed": 7})
    assert "settings changed" in states(small_line(folder))["prompts", "hook"].reasons[0]


def test_a_category_never_made_leaves_the_fan_in_fresh(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook")
    assert states(line)["dataset", None].state == "fresh"


def test_category_taken_out_of_the_taxonomy_leaves_the_dataset(folder, instance):
    line = small_line(folder)
    run_all(line, instance, "hook", "worn")
    (folder / "taxonomy" / "categories" / "worn.yaml").unlink()
    line = small_line(folder)
    assert states(line)["dataset", None].state == "stale"
    run(line, instance, "line_dataset")
    assert in_dataset(line) == {"hook"}


def test_version_deleted_by_hand_is_made_again(folder, instance):
    line = small_line(folder)
    run(line, instance, "line_head")
    shutil.rmtree(line.platform.store.require("dictionary").path)
    assert run(line, instance, "line_head").success
    assert line.platform.store.require("dictionary").table("rows").height == 3


# --- the graph ---------------------------------------------------------------------------------


def test_phases_alternate_between_all_and_one_category():
    phases = Graph(STAGES, SUITES).phases()
    assert [(p.number, p.partitions, [s.name for s in p.stages]) for p in phases] == [
        (0, None, ["dictionary"]),
        (1, "hand_pose", ["prompts", "pictures"]),
        (2, None, ["dataset", "model"]),
        (3, "hand_pose", ["evaluation"]),
        (4, None, ["report"]),
    ]


@stage("drawings", partitions="scenario", code_version="1")
def drawings(work: Work, out: Staging) -> Result:
    out.write_table("rows", pl.DataFrame({"scenario": [work.scenario]}))
    return Result()


@stage("card", deps=["drawings", "pictures"], code_version="1")
def card(work: Work, out: Staging) -> Result:
    seen = [*work.published("drawings"), *work.published("pictures")]
    missing = len(work.missing("drawings"))
    out.write_table("rows", pl.DataFrame({"seen": seen, "missing": [missing] * len(seen)}))
    return Result()


BOTH = {**SUITES, "drawings": suite(rows=[row_count()]), "card": suite(rows=[row_count()])}


def test_two_kinds_of_partitions_are_phases_of_their_own_and_meet_in_a_fan_in():
    phases = Graph([*STAGES, drawings, card], BOTH).phases()
    assert [(p.number, p.partitions) for p in phases] == [
        (0, None),
        (1, "hand_pose"),
        (1, "scenario"),
        (2, None),
        (3, "hand_pose"),
        (4, None),
    ]
    assert {s.name for p in phases for s in p.stages if p.partitions == "scenario"} == {"drawings"}


def test_a_fan_in_of_scenarios_reads_what_is_published_and_names_the_rest(folder, instance):
    line = line_of(folder, drawings, card, dictionary, prompts, pictures, suites=BOTH)
    assert run(line, instance, "scenario_line", "functional").success
    assert run(line, instance, "line_dataset").success
    made = line.platform.store.require("card").table("rows")
    assert made.to_dicts() == [{"seen": "functional", "missing": 2}]
    assert line.platform.store.current("drawings", "functional") is not None


@pytest.mark.parametrize(
    ("stages", "suites", "told"),
    [
        ([dataset], SUITES, "wait for parents that never come"),
        ([*STAGES, stage("model", code_version="1")(dataset.function)], SUITES, "two stages"),
        (STAGES, {**SUITES, "model": []}, "no gate for model"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(stages, suites, told):
    with pytest.raises(HoiError, match=told):
        Graph(stages, suites)


def test_a_stage_reads_only_what_it_declares(folder):
    @stage("sly", code_version="1")
    def sly(work: Work, out: Staging) -> Result:
        work.parent("dictionary")
        return Result()

    line = line_of(folder, sly, suites={"sly": suite(rows=[row_count()])})
    platform = line.platform
    work = line.graph.work(sly, None, platform.settings, platform.store, platform.partition_keys)
    with platform.store.stage("sly") as out, pytest.raises(TypeError, match="not among the deps"):
        sly(work, out)
