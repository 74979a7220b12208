"""Every query command on an empty home, on one with a row of each kind, and on a fresh asset."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.image_trace import BENCHMARK_IN, DRAWN_IN
from hoi_assets.cli.main import main
from hoi_assets.cli.output import print_json
from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.cli.test_rate import executed
from hoi_assets_tests.rating.published import publish, small_store

OK, USER_ERROR = ExitCode.OK, ExitCode.USER_ERROR
CATEGORY, SCENARIO = "hook", "functional"
STEP_KEYS = {"step", "facts"}
STALE_KEYS = {"total", "fresh", "runs_by_default", "assets"}
SUMMARY_KEYS = {"profile", "categories", "scenarios", "scores", "costs", "orphaned", "places"}


def image_id(asset: str) -> str:
    return f"{DRAWN_IN.index(asset):x}" * 16


def publish_one_row_each(home: Path) -> Store:
    """One image of every kind, the prompt of one, and a scorecard of one score."""
    store = small_store(home)
    prompt = pl.DataFrame({"prompt_id": ["p0"], "prompt": ["a hand"], "status": ["accepted"]})
    publish(store, "detailed_prompts", CATEGORY, prompt)
    for asset in DRAWN_IN:
        partition = SCENARIO if asset in BENCHMARK_IN else CATEGORY
        source = "baseline_images" if asset == "initial_images" else asset
        table = store.require(source, partition).table("rows").head(1)
        ids = {"image_id": pl.lit(image_id(asset)), "base_digest": pl.lit("of another model")}
        publish(store, asset, partition, table.with_columns(**ids))
    score: dict[str, Any] = {
        "suite": "hoi",
        "method": "base",
        "metric": "clip_score",
        "slice_kind": "all",
        "n": 1,
        "mean": 0.5,
        "ci_low": None,
        "ci_high": None,
    }
    with store.stage("hoi_scorecards") as out:
        out.write_table("scorecard", pl.DataFrame([score]))
        store.publish(out, {"code_version": "1"}, None, {})
    return store


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    return tmp_path / "home"


# Command, how it ends on an empty home and on one with a row each, and the keys of its JSON.
TABLE = [
    (["stale"], OK, OK, STALE_KEYS),
    (["stale", "--all"], OK, OK, STALE_KEYS),
    (["summary"], OK, OK, SUMMARY_KEYS),
    *((["trace", image_id(asset)], USER_ERROR, OK, STEP_KEYS) for asset in DRAWN_IN),
    (["trace", "1234"], USER_ERROR, USER_ERROR, set()),
    # Not drawn by the profile's model, so that nothing has to be loaded.
    (["replay", image_id("candidate_images")], USER_ERROR, USER_ERROR, set()),
    (["sql", "select asset, version from publications"], OK, OK, {"asset", "version"}),
    (["sql", "select sum(seed) as seed from candidate_images"], USER_ERROR, OK, {"seed"}),
    (["prune", "--dry-run"], OK, OK, {"versions", "count", "orphaned", "dry_run"}),
    (["rate", "status"], OK, OK, {"study", "raters"}),
    (["rate", "status", "cups"], USER_ERROR, USER_ERROR, set()),
]


@pytest.mark.parametrize("full", [False, True], ids=["empty home", "one row each"])
def test_queries_answer_on_every_home_as_text_and_as_json(
    full: bool, empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if full:
        publish_one_row_each(empty_home)
    for arguments, ends_empty, ends_full, keys in TABLE:
        ends = ends_full if full else ends_empty
        capsys.readouterr()
        assert main(arguments) == ends, arguments
        text = capsys.readouterr()
        assert bool(text.out) == (ends == OK), arguments
        assert main([*arguments, "--json"]) == ends, arguments
        answer = capsys.readouterr()
        if ends == USER_ERROR:
            assert not answer.out and answer.err == text.err and text.err.startswith("error: ")
            continue
        found = json.loads(answer.out)
        assert not answer.err, arguments
        for one in found if isinstance(found, list) else [found]:
            assert set(one) == keys, arguments


def test_trace_tells_the_way_of_an_image_of_either_pipeline(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_one_row_each(empty_home)
    steps = {}
    for asset in DRAWN_IN:
        capsys.readouterr()
        assert main(["trace", image_id(asset)[:8], "--json"]) == OK
        found = json.loads(capsys.readouterr().out)
        steps[asset] = [one["step"].split(" (")[0].split(":")[0] for one in found]
        (drawn,) = [one["facts"] for one in found if one["step"].startswith("drawn")]
        assert drawn["image_id"] == image_id(asset)
    assert steps["candidate_images"] == [
        *("prompt", "drawn", "verified_pairs", "hoi_dataset", "made from")
    ]
    before = ["interacting_prompts", "interaction_decompositions", "drawn", "image_critiques"]
    assert steps["initial_images"] == [*before, "made from"]
    assert steps["refined_images"] == [*before, "refined_images", "made from"]
    assert steps["baseline_images"] == [*before, "baseline_images", "made from"]


def test_trace_tells_which_encoders_cut_the_prompt(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = publish_one_row_each(empty_home)
    told = {"text_encoder_tokens": 90, "cut_by": "text_encoder", "prompt_cut": True}
    for asset in DRAWN_IN:
        partition = SCENARIO if asset in BENCHMARK_IN else CATEGORY
        table = store.require(asset, partition).table("rows")
        publish(
            store,
            asset,
            partition,
            table.with_columns(**{name: pl.lit(value) for name, value in told.items()}),
        )
        capsys.readouterr()
        assert main(["trace", image_id(asset), "--json"]) == OK
        found = json.loads(capsys.readouterr().out)
        (drawn,) = [one["facts"] for one in found if one["step"].startswith("drawn")]
        assert told.items() <= drawn.items()


def test_summary_shows_a_score_of_one_image_without_an_interval(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_one_row_each(empty_home)
    assert main(["summary"]) == OK
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "clip_score" in row]
    assert "0.500" in line and "–" in line
    assert main(["summary", "--json"]) == OK
    (score,) = json.loads(capsys.readouterr().out)["scores"]
    assert (score["n"], score["mean"], score["ci_low"]) == (1, 0.5, None)


@pytest.mark.slow
def test_stale_lists_fresh_assets_with_all_and_says_what_a_run_makes(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executed(base_prompt_taxonomy, Store(empty_home), load_settings())
    capsys.readouterr()
    assert main(["stale"]) == OK
    shown = capsys.readouterr().out
    assert "base_prompt_taxonomy" not in shown and "detailed_prompts" in shown
    assert "1 of " in shown
    runs = "`hoi run --only stale` runs the profile's partitions: index_press, power_sphere, worn,"
    assert runs in shown and "are of other partitions: name these, or add --all" in shown

    assert main(["stale", "--all"]) == OK
    (line,) = [
        row
        for row in capsys.readouterr().out.splitlines()
        if row.startswith("base_prompt_taxonomy")
    ]
    assert line.split() == ["base_prompt_taxonomy", "fresh"]

    assert main(["stale", "--all", "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["fresh"] == 1 and found["total"] == len(found["assets"])
    (fresh,) = [one for one in found["assets"] if one["state"] == "fresh"]
    assert (fresh["asset"], fresh["partition"], fresh["reasons"]) == (
        "base_prompt_taxonomy",
        None,
        [],
    )
    assert fresh["version"] and fresh["failed_rows"] == 0


def test_sql_as_json_takes_every_type_that_duckdb_answers_with(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = (
        "select 'nan'::double as a, date '2025-01-02' as b, sum(3) as c, [1, null] as d, "
        "'ab'::blob as e, {'x': 1} as f, 1.5::decimal(4, 2) as g, 'é' as h"
    )
    assert main(["sql", query, "--json"]) == OK
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        **{"a": None, "b": "2025-01-02", "c": 3, "d": [1, None], "e": "6162", "f": {"x": 1}},
        **{"g": 1.5, "h": "é"},
    }


def test_json_is_readable_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": Path("/a/\udcff"), "infinite": float("inf"), 1: ("é",)})
    assert json.loads(capsys.readouterr().out)["infinite"] is None
