"""The built-in benchmark: prompts of the grammar that no training picture shows.

`python -m hoi_assets.grammar.benchmark --out data/interacting` writes it.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hoi_assets.grammar.plans import SCENARIOS, Plan, make_plan
from hoi_assets.grammar.sentences import Triple, noun_of, sentence, triples

BENCHMARK_PROMPTS = 44  # per scenario
RESERVED_SHARE = 8  # one sentence in so many belongs to the benchmark, and to no training stream


def is_reserved(plan: Plan) -> bool:
    """Whether the plan's components belong to the benchmark: no training picture shows them."""
    components = json.dumps([asdict(triple) for triple in triples(plan)])
    return hashlib.sha256(components.encode("utf-8")).digest()[0] % RESERVED_SHARE == 0


def benchmark_plans(scenario: str, count: int = BENCHMARK_PROMPTS) -> list[Plan]:
    """The plans behind the built-in benchmark's prompts of a scenario; no two are alike."""
    plans: dict[tuple[Triple, ...], Plan] = {}
    seed = 0
    while len(plans) < count:
        plan = replace(make_plan(scenario, seed), setting=False)
        if is_reserved(plan):
            plans.setdefault(triples(plan), plan)
        seed += 1
    return list(plans.values())


def benchmark_row(plan: Plan) -> dict[str, str]:
    """A line of the benchmark's files: `topic` and `prompt`, as the official files have them."""
    heads = [
        noun_of(plan, ref).head
        for relation in plan.relations
        for ref in (relation.subject, relation.object)
    ]
    topic = "-".join(head for head in dict.fromkeys(heads) if head != "hand")
    return {"topic": topic, "prompt": sentence(plan)}


def write_benchmark(out: Path) -> list[Path]:
    """Write `<out>/<scenario>.jsonl` for the three scenarios; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for scenario in SCENARIOS:
        lines = [json.dumps(benchmark_row(plan)) + "\n" for plan in benchmark_plans(scenario)]
        path = out / f"{scenario}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the built-in benchmark."""
    parser = argparse.ArgumentParser(prog="python -m hoi_assets.grammar.benchmark")
    parser.add_argument("--out", type=Path, required=True, help="folder of the benchmark")
    for path in write_benchmark(parser.parse_args(arguments).out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
