"""Every query command on an empty home, on one of one row a table, and on one full of rows."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.image_trace import BENCHMARK_IN, DRAWN_IN
from hoi_assets.cli.main import main
from hoi_assets.cli.output import print_json
from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy
from hoi_assets.evaluation.scorecards import SCORECARD
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.cli.homes import WORDS, fill_home, image_id
from hoi_assets_tests.cli.test_rate import executed

OK, USER_ERROR = ExitCode.OK, ExitCode.USER_ERROR
CATEGORY, SCENARIO = "hook", "functional"
STEP_KEYS = {"step", "facts"}
STALE_KEYS = {"total", "fresh", "runs_by_default", "assets"}
SUMMARY_KEYS = {"profile", "categories", "scenarios", "rounds", "scores", "costs"}
SUMMARY_KEYS |= {"orphaned", "places"}


def id_in(asset: str) -> str:
    return image_id(asset, SCENARIO if asset in BENCHMARK_IN else CATEGORY)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    return tmp_path / "home"


# Command, how it ends on an empty home, on one of one row a table and on a full one, and the keys
# of its JSON; None where it prints none.
TABLE: list[tuple[list[str], str, set[str] | None]] = [
    (["stale"], "ok ok ok", STALE_KEYS),
    (["stale", "--all"], "ok ok ok", STALE_KEYS),
    (["summary"], "ok ok ok", SUMMARY_KEYS),
    *((["trace", id_in(asset)], "error ok ok", STEP_KEYS) for asset in DRAWN_IN),
    (["trace", "1234"], "error error error", set()),
    # Not drawn by the profile's model, so that nothing has to be loaded.
    *((["replay", id_in(asset)], "error error error", set()) for asset in DRAWN_IN),
    (["sql", "select asset, version from publications"], "ok ok ok", {"asset", "version"}),
    (["sql", "select sum(seed) as seed from candidate_images"], "error ok ok", {"seed"}),
    (["prune", "--dry-run"], "ok ok ok", {"versions", "count", "orphaned", "dry_run"}),
    (["rate", "status"], "ok ok ok", {"study", "raters"}),
    (["rate", "status", "cups"], "error error error", set()),
    (["rate", "links", "cups", "anna"], "error error error", None),
    (["backfill", "--all", "--only", "failed"], "ok ok ok", None),
    (["run", CATEGORY, SCENARIO, "--only", "failed"], "ok ok ok", None),
]
HOMES = {"empty": 0, "one row": 1, "full": 3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOMES)
def test_commands_answer_on_every_home_as_text_and_as_json(
    kind: str, empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind != "empty":
        fill_home(empty_home, HOMES[kind], [CATEGORY, SCENARIO] if kind == "one row" else None)
    for arguments, ends, keys in TABLE:
        end = {"ok": OK, "error": USER_ERROR}[ends.split()[list(HOMES).index(kind)]]
        capsys.readouterr()
        assert main(arguments) == end, arguments
        text = capsys.readouterr()
        assert bool(text.out) == (end == OK), arguments
        assert text.err.startswith("error: ") == (end == USER_ERROR), arguments
        assert "None" not in text.out + text.err, arguments
        if keys is None:
            continue
        assert main([*arguments, "--json"]) == end, arguments
        answer = capsys.readouterr()
        if end == USER_ERROR:
            assert not answer.out and answer.err == text.err
            continue
        found = json.loads(answer.out)
        assert not answer.err, arguments
        for one in found if isinstance(found, list) else [found]:
            assert set(one) == keys, arguments


@pytest.mark.slow
def test_every_published_table_can_be_queried(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_home(empty_home, 1, [CATEGORY, SCENARIO])
    assert main(["sql", "show tables", "--json"]) == OK
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert len(names) > 40
    for name in names:
        assert main(["sql", f"select * from {name}"]) == OK, name
        assert main(["sql", f"select * from {name}", "--json"]) == OK, name


@pytest.mark.slow
def test_healthy_home_is_fresh_and_a_run_of_what_is_stale_makes_nothing(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_home(empty_home, 2)
    assert main(["stale"]) == OK
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "112 of 112 are fresh"
    assert main(["stale", "--all"]) == OK
    rows = capsys.readouterr().out.splitlines()[2:-1]
    assert len(rows) == 112 and all(row.split()[-1] == "fresh" for row in rows)
    assert main(["run", "--only", "stale"]) == OK
    shown = capsys.readouterr().out
    assert "skipped" in shown and "made" not in shown.split("category")[0]


def test_trace_tells_the_way_of_an_image_of_either_pipeline(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_home(empty_home, 1, [CATEGORY, SCENARIO])
    steps = {}
    for asset in DRAWN_IN:
        capsys.readouterr()
        assert main(["trace", id_in(asset)[:8], "--json"]) == OK
        found = json.loads(capsys.readouterr().out)
        steps[asset] = [one["step"].split(" (")[0].split(":")[0] for one in found]
        (drawn,) = [one["facts"] for one in found if one["step"].startswith("drawn")]
        assert drawn["image_id"] == id_in(asset)
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
    store = fill_home(empty_home, 1, [CATEGORY, SCENARIO]).platform.store
    told = {"text_encoder_tokens": 90, "cut_by": "text_encoder", "prompt_cut": True}
    for asset in DRAWN_IN:
        partition = SCENARIO if asset in BENCHMARK_IN else CATEGORY
        table = store.require(asset, partition).table("rows")
        cut = table.with_columns(**{name: pl.lit(value) for name, value in told.items()})
        with store.stage(asset, partition) as out:
            out.write_table("rows", cut)
            store.publish(out, {}, None)
        capsys.readouterr()
        assert main(["trace", id_in(asset), "--json"]) == OK
        found = json.loads(capsys.readouterr().out)
        (drawn,) = [one["facts"] for one in found if one["step"].startswith("drawn")]
        assert told.items() <= drawn.items()


def test_summary_shows_a_score_of_one_image_without_an_interval(
    empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(empty_home)
    row = SCORECARD.frame(
        [dict.fromkeys(SCORECARD.schema) | WORDS | {"n": 1, "mean": 0.5, "prompts": 1}]
    )
    with store.stage("hoi_scorecards") as out:
        out.write_table("scorecard", row)
        store.publish(out, {}, None)
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
    # One line for what the profile runs, one for the rest; together all that is not fresh.
    own, others = (int(found) for found in re.findall(r"makes (?:the other )?(\d+)", shown))
    assert f"1 of {1 + own + others} are fresh" in shown
    assert "`hoi run --only stale` makes" in shown
    assert "`hoi run --only stale --all` makes the other" in shown and "tripod" in shown

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
