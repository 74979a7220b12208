"""What is published, in short: counts per category and scenario, reasons, scores, costs, places."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from hoi_assets.cli.round_table import add_rounds, find_rounds
from hoi_assets.engines.image_cache import generation_seconds
from hoi_assets.evaluation.benchmark_scores import average_costs
from hoi_assets.settings import IN_CHECKOUT
from hoi_assets.store.home import profile_of
from hoi_assets.store.orphans import orphans
from hoi_assets.store.versions import Store

LOG_WIDTH = 120
NOTHING = "–"
SHOWN_METRICS = (
    "examiner_all",
    "examiner_components",
    "component_accuracy",
    "examiner_defect_free",
    "verifier_fidelity",
    "verifier_alignment",
    "clip_score",
    "image_reward",
    "hpsv3",
)


def summarise_home(
    store: Store,
    categories: Sequence[str],
    scenarios: Sequence[str],
    known: Collection[str] | None = None,
) -> dict[str, Any]:
    """The home's profile, counts per category and scenario, rounds, scores, costs per method, and
    paths, as JSON-able data.

    Args:
        categories, scenarios: counts are None where nothing is published.
        known: partitions that there are; what is stored for others is listed as orphaned.
    """
    return {
        "profile": profile_of(store.home) or store.profile,
        "categories": [_category(store, category) for category in categories],
        "scenarios": [_scenario(store, scenario) for scenario in scenarios],
        "rounds": find_rounds(store),
        "scores": _scores(store),
        "costs": _costs(store),
        "orphaned": _orphaned(store, known),
        "places": _places(store),
    }


def _orphaned(store: Store, known: Collection[str] | None) -> list[dict[str, Any]]:
    assets: dict[str, list[str]] = {}
    for asset, partition in [] if known is None else orphans(store, known):
        assets.setdefault(partition, []).append(asset)
    return [{"partition": name, "assets": assets[name]} for name in sorted(assets)]


def _category(store: Store, category: str) -> dict[str, Any]:
    def accepted(asset: str) -> int | None:
        published = store.current(asset, category)
        if published is None:
            return None
        return published.table("rows").filter(pl.col("status") == "accepted").height

    verdicts = store.current("verified_pairs", category)
    reasons: dict[str, int] = {}
    if verdicts is not None:
        dropped = verdicts.table("rows").filter(pl.col("status") != "accepted")
        reasons = dict(dropped.group_by("reason").len().sort("len", "reason").rows()[::-1])
    return {
        "category": category,
        "prompts": accepted("detailed_prompts"),
        "candidates": accepted("candidate_images"),
        "accepted": accepted("verified_pairs"),
        "rejected": reasons,
    }


def _scenario(store: Store, scenario: str) -> dict[str, Any]:
    critiques = store.current("image_critiques", scenario)
    refined = store.current("refined_images", scenario)
    judged = None if critiques is None else critiques.table("rows")
    chosen = None
    if refined is not None:
        own = refined.table("rows").filter((pl.col("method") == "detailscribe") & "selected")
        chosen = own.filter(pl.col("candidate") > 0).height
    return {
        "scenario": scenario,
        "prompts": None if judged is None else judged.height,
        "components": None if judged is None else int(judged["components"].sum()),
        "failing": None if judged is None else int(judged["failing"].sum()),
        "nothing_to_correct": None if judged is None else int(judged["nothing_to_correct"].sum()),
        "variant_chosen": chosen,
        "failed": None if judged is None else judged.filter(pl.col("status") == "failed").height,
    }


def _scores(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for asset in ("hoi_scorecards", "interacting_scorecards"):
        published = store.current(asset)
        if published is None:
            continue
        card = published.table("scorecard").filter(
            pl.col("metric").is_in(SHOWN_METRICS)
            & (pl.col("slice_kind") == "all")
            & ~pl.col("method").str.contains("_mean$|_oracle$|_published$")
        )
        names = ("suite", "method", "metric", "n", "mean", "ci_low", "ci_high")
        rows += card.select(names).sort("suite", "metric", "method").to_dicts()
    return rows


def _costs(store: Store) -> list[dict[str, Any]]:
    published = store.current("interacting_scorecards")
    if published is None:
        return []
    images = published.table("candidates")
    return average_costs(images, generation_seconds(store, images["image_id"].unique())).to_dicts()


def _places(store: Store) -> dict[str, str]:
    places = {}
    for name, asset, file in (
        ("report", "evaluation_report", "report.html"),
        ("dataset", "hoi_dataset", "dataset"),
        ("fine-tuned LoRA", "finetuned_model", "lora"),
    ):
        published = store.current(asset)
        if published is not None:
            places[name] = published.address(file)
    return places


def print_summary(found: dict[str, Any]) -> None:
    """Print what `summarise_home` found as tables, and what to do next."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)  # a log has room for whole names
    console.print(f"profile: {found['profile']}", soft_wrap=True)
    counts = Table("category", "prompts", "candidates", "accepted", "rejected by reason")
    for row in found["categories"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in row["rejected"].items())
        numbers = [_cell(row[name]) for name in ("prompts", "candidates", "accepted")]
        counts.add_row(row["category"], *numbers, reasons)
    if found["categories"]:
        console.print(counts)
    if found["scenarios"]:
        names = tuple(found["scenarios"][0])
        scenarios = Table(*(name.replace("_", " ") for name in names))
        for row in found["scenarios"]:
            scenarios.add_row(row["scenario"], *(_cell(row[name]) for name in names[1:]))
        console.print(scenarios)
    if found["rounds"]:
        add_rounds(console, found["rounds"])
    if found["scores"]:
        scores = Table("suite", "metric", "method", "n", "mean", "95% interval")
        for row in found["scores"]:
            scores.add_row(
                row["suite"],
                row["metric"],
                row["method"],
                str(row["n"]),
                _number(row["mean"]),
                _interval(row["ci_low"], row["ci_high"]),
            )
        console.print(scores)
    if found["costs"]:
        spent = Table("method", "denoiser evaluations (NFE) a prompt", "seconds a prompt")
        for row in found["costs"]:
            seconds = None if row["seconds"] is None else f"{row['seconds']:.1f}"
            spent.add_row(row["method"], f"{row['denoiser_evaluations']:.0f}", _cell(seconds))
        console.print(spent)
    for row in found["orphaned"]:
        console.print(
            f"orphaned: {row['partition']} is not in the taxonomy any more; nothing reads its "
            f"{len(row['assets'])} assets, and `hoi prune --orphans` removes them",
            soft_wrap=True,
        )
    for name, place in found["places"].items():
        console.print(f"{name}: {place}", soft_wrap=True)
    if "dataset" in found["places"]:
        path = json.dumps(found["places"]["dataset"], ensure_ascii=False)
        opened = f"datasets.load_dataset({path})"
        console.print(f"open the dataset: {opened}", soft_wrap=True)
    command = "make ui" if IN_CHECKOUT else "hoi ui"
    console.print(f"look at it in the browser: {command}, then http://127.0.0.1:3000")


def _cell(value: int | str | None) -> str:
    return NOTHING if value is None else str(value)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None else f"{low:.3f} – {high:.3f}"
