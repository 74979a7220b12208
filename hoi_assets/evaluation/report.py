"""The evaluation report: one HTML page that needs nothing beside it."""

import base64
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store

if TYPE_CHECKING:
    from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
PICTURES_PER_CATEGORY = 6
EXAMPLES = 12
ROWS_PER_SCENARIO = 4
BENCHMARK = "interacting"
BENCHMARK_METRICS = (
    "examiner_components",
    "component_accuracy",
    "clip_score",
    "image_reward",
    "blip_vqa",
    "judge_rating",
    "judge_yes",
    "human_rating_alignment",
    "human_rating_fidelity",
    "human_win_rate",
)
METRICS = (
    "examiner_all",
    "examiner_defect_free",
    "examiner_pose",
    "examiner_object",
    "examiner_colour",
    "examiner_side",
    "verifier_fidelity",
    "verifier_alignment",
    "clip_score",
    "image_reward",
)

Parents = Mapping[str, "Published | dict[str, Published] | None"]


@dataclass(frozen=True)
class Page:
    """The page, and one row: bytes, pictures, external_references."""

    html: str
    summary: pl.DataFrame


def build_report(store: Store, settings: Settings, parents: Parents) -> Page:
    """Render the page from the versions in force.

    Args:
        parents: by asset, its version in force, or its versions by category; None or an absent
            category is left out of the page and named as missing.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    html = environment.get_template("report.html.j2").render(
        profile=settings.profile,
        categories=_categories(store, parents),
        verifier=_verifier(parents),
        examples=_examples(store, parents),
        dataset=_first_row(parents.get("hoi_dataset"), "summary"),
        tuning=_tuning(parents),
        scores=_scores(parents),
        benchmark=_benchmark(store, parents),
        people=_people(parents),
        versions=_versions(parents),
    )
    summary = {
        "bytes": len(html.encode()),
        "pictures": html.count("<img "),
        "external_references": len(re.findall(r'(?:src|href)="(?!data:|#)', html)),
    }
    return Page(html=html, summary=pl.DataFrame([summary]))


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _by_category(parents: Parents, asset: str) -> dict[str, Published]:
    found = parents.get(asset)
    return found if isinstance(found, dict) else {}


def _first_row(published: Any, table: str) -> dict[str, Any]:
    return published.table(table).row(0, named=True) if isinstance(published, Published) else {}


def _inline(image: "Image.Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _pictures(store: Store, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"src": _inline(store.images.open(row["pixels"]))} for row in rows]


def _categories(store: Store, parents: Parents) -> list[dict[str, Any]]:
    taxonomy = parents.get("base_prompt_taxonomy")
    if not isinstance(taxonomy, Published):
        return []
    prompts, verdicts = (
        _by_category(parents, "detailed_prompts"),
        _by_category(parents, "verified_pairs"),
    )
    instances, loras = (
        _by_category(parents, "instance_images"),
        _by_category(parents, "category_loras"),
    )
    shown = []
    for row in taxonomy.table("categories").iter_rows(named=True):
        key = row["category"]
        if key not in verdicts:
            shown.append(row | {"missing": True})
            continue
        table = verdicts[key].table("rows")
        drawn = table.filter(pl.col("pixels").is_not_null())
        reasons = (
            table.filter(pl.col("reason").is_not_null())
            .group_by("reason")
            .len()
            .sort("len", "reason", descending=[True, False])
        )
        shown.append(
            row
            | {
                "missing": False,
                "prompts": _accepted(prompts.get(key)),
                "instances": _accepted(instances.get(key)),
                "candidates": drawn.height,
                "accepted": table.filter(pl.col("status") == "accepted").height,
                "reasons": list(reasons.iter_rows()),
                "lora": _first_row(loras.get(key), "summary"),
                "instance_pictures": _pictures(store, _head(instances.get(key))),
                "candidate_pictures": _pictures(
                    store, drawn.head(PICTURES_PER_CATEGORY).iter_rows(named=True)
                ),
            }
        )
    return shown


def _accepted(published: Published | None) -> int:
    if published is None:
        return 0
    return published.table("rows").filter(pl.col("status") == "accepted").height


def _head(published: Published | None) -> list[dict[str, Any]]:
    if published is None:
        return []
    rows = published.table("rows").filter(pl.col("status") == "accepted")
    return rows.head(PICTURES_PER_CATEGORY).to_dicts()


def _examples(store: Store, parents: Parents) -> dict[str, list[dict[str, Any]]]:
    tables = [one.table("rows") for one in _by_category(parents, "verified_pairs").values()]
    if not tables:
        return {"accepted": [], "rejected": []}
    rows = pl.concat(tables).filter(pl.col("p_pair").is_not_null())
    best = rows.filter(pl.col("status") == "accepted").sort("p_pair", "image_id", descending=True)
    worst = rows.filter(pl.col("status") == "rejected").sort("reason", "p_pair", "image_id")
    return {
        "accepted": _pictures(store, best.head(EXAMPLES).to_dicts()),
        "rejected": _pictures(
            store, worst.gather_every(max(1, worst.height // EXAMPLES)).head(EXAMPLES).to_dicts()
        ),
    }


def _verifier(parents: Parents) -> dict[str, Any]:
    from hoi_assets.pictures import reliability_diagram

    verifier = parents.get("verifier")
    if not isinstance(verifier, Published):
        return {}
    return {
        "summary": _first_row(verifier, "summary"),
        "quality": verifier.table("quality").to_dicts(),
        "reliability": _png(reliability_diagram(verifier.table("reliability"))),
    }


def _tuning(parents: Parents) -> dict[str, Any]:
    from hoi_assets.pictures import loss_curve

    tuned = parents.get("finetuned_model")
    if not isinstance(tuned, Published):
        return {}
    return {
        "summary": _first_row(tuned, "summary"),
        "curve": _png(loss_curve(tuned.table("log"))),
    }


def _scores(parents: Parents) -> dict[str, Any]:
    from hoi_assets.pictures import heat_map, scorecard_plot

    scorecards = parents.get("scorecards")
    if not isinstance(scorecards, Published):
        return {}
    card = scorecards.table("scorecard").filter(pl.col("suite") != BENCHMARK)
    if card.is_empty():
        return {}
    present = set(card["metric"])
    metrics = [metric for metric in METRICS if metric in present]
    main = "examiner_all" if "examiner_all" in present else "verifier_alignment"
    cells = card.filter(
        (pl.col("suite") == "hoi")
        & (pl.col("slice_kind") == "category")
        & (pl.col("metric") == main)
    )
    rows = card.filter(pl.col("slice_kind") != "category").sort("suite", "slice_kind", "slice")
    return {
        "plot": _png(scorecard_plot(card)),
        "heat_map": _png(heat_map(cells, rows="slice", columns="method", values="mean")),
        "heat_map_metric": main,
        "rows": [
            row for metric in metrics for row in rows.filter(pl.col("metric") == metric).to_dicts()
        ],
        "comparisons": scorecards.table("comparisons")
        .filter((pl.col("slice_kind") != "category") & (pl.col("suite") != BENCHMARK))
        .to_dicts(),
    }


def _benchmark(store: Store, parents: Parents) -> dict[str, Any]:
    """The second line: pictures with their critiques and variants, and the suite's scores."""
    from hoi_assets.pictures import scorecard_plot

    critiques = _by_category(parents, "image_critiques")
    refined, baselines = (
        _by_category(parents, "refined_images"),
        _by_category(parents, "baseline_images"),
    )
    if not refined:
        return {}
    scenarios = []
    for scenario, published in refined.items():
        drawn = published.table("rows").filter(pl.col("pixels").is_not_null())
        if scenario in baselines:
            others = baselines[scenario].table("rows").filter("selected")
            drawn = pl.concat([drawn, others.filter(pl.col("pixels").is_not_null())])
        findings = critiques[scenario].table("findings") if scenario in critiques else None
        rows = []
        for row_id in drawn["row_id"].unique(maintain_order=True).head(ROWS_PER_SCENARIO):
            own = drawn.filter(pl.col("row_id") == row_id)
            missing: list[str] = []
            if findings is not None:
                wrong = findings.filter((pl.col("row_id") == row_id) & ~pl.col("satisfied"))
                missing = wrong["problem"].to_list()
            rows.append(
                {
                    "prompt": own["prompt"][0],
                    "missing": missing,
                    "pictures": _pictures(store, own.iter_rows(named=True)),
                }
            )
        scenarios.append({"scenario": scenario, "rows": rows})
    scorecards = parents.get("scorecards")
    if not isinstance(scorecards, Published):
        return {"scenarios": scenarios}
    card = scorecards.table("scorecard").filter(pl.col("suite") == BENCHMARK)
    whole = card.filter(pl.col("slice_kind") == "all")
    compared = scorecards.table("comparisons").filter(
        (pl.col("suite") == BENCHMARK) & (pl.col("slice_kind") == "all")
    )
    return {
        "scenarios": scenarios,
        "plot": _png(scorecard_plot(card)) if card.height else None,
        "rows": [
            row
            for metric in BENCHMARK_METRICS
            for row in whole.filter(pl.col("metric") == metric).to_dicts()
        ],
        "comparisons": compared.to_dicts(),
    }


def _people(parents: Parents) -> dict[str, Any]:
    """What people said, and how far they and the metrics agree; empty without votes."""
    ratings, scorecards = parents.get("human_ratings"), parents.get("scorecards")
    if not isinstance(ratings, Published) or ratings.table("rows").is_empty():
        return {}
    whole = pl.col("slice_kind") == "all"
    return {
        "ratings": ratings.table("ratings").filter(whole).to_dicts(),
        "wins": ratings.table("wins").filter(whole).to_dicts(),
        "agreement": ratings.table("agreement").filter(pl.col("rater").is_null()).to_dicts(),
        "equal": ratings.table("equal").height,
        "metrics": scorecards.table("metric_agreement").to_dicts()
        if isinstance(scorecards, Published)
        else [],
    }


def _versions(parents: Parents) -> list[tuple[str, str]]:
    found = []
    for asset, published in parents.items():
        if isinstance(published, Published):
            found.append((asset, published.version))
        elif isinstance(published, dict):
            found += [(one.name, one.version) for one in published.values()]
    return found
