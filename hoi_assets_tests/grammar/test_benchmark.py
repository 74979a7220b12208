"""The built-in benchmark."""

import json

import pytest

from hoi_assets.grammar.benchmark import BENCHMARK_PROMPTS, benchmark_plans, benchmark_row, main
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.grammar.sentences import parse
from hoi_assets.settings import ROOT

STORED = ROOT / "data" / "interacting"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stored_benchmark_is_what_the_grammar_makes(scenario):
    lines = (STORED / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == [benchmark_row(plan) for plan in benchmark_plans(scenario)]
    assert len(rows) == BENCHMARK_PROMPTS >= 40
    assert all(set(row) == {"topic", "prompt"} for row in rows)
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert all(parse(row["prompt"]) for row in rows)


def test_benchmark_is_written_as_it_is_stored(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    for scenario in SCENARIOS:
        name = f"{scenario}.jsonl"
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes()
