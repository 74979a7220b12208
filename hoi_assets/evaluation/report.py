"""The evaluation report: one HTML page that needs nothing beside it.

Each section stands alone: the page shows what is published of PPV, of DetailScribe, or both.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.evaluation.report_answers import Answer
from hoi_assets.evaluation.report_cut import describe_cut_texts
from hoi_assets.evaluation.report_dataset_answers import answer_dataset, answer_rejected, spell
from hoi_assets.evaluation.report_detailscribe import (
    describe_interacting_scores,
    describe_scenarios,
)
from hoi_assets.evaluation.report_examiner import examine_candidates
from hoi_assets.evaluation.report_gallery import describe_gallery
from hoi_assets.evaluation.report_method_answers import answer_finetuning, answer_refinement
from hoi_assets.evaluation.report_pairs import describe_pairs
from hoi_assets.evaluation.report_parts import Parents, find_version, find_versions, first_row
from hoi_assets.evaluation.report_ppv import (
    describe_categories,
    describe_finetuning,
    describe_hoi_scores,
    describe_rounds,
    describe_verifier,
)
from hoi_assets.evaluation.report_verdicts import read_verdicts
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store

TEMPLATES = Path(__file__).parent / "templates"
PAGE, SCRIPT = "report.html.j2", "report.js.j2"
# Included by the page; the recipe of the asset holds the templates named in modules.
PARTS = (
    "report.css.j2",
    "report_answers.html.j2",
    "report_figure.html.j2",
    "report_gallery.html.j2",
    "report_pairs.html.j2",
    "report_rounds.html.j2",
)
# The page asks for nothing, and runs no script but its own, whatever a prompt says.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
    "base-uri 'none'; form-action 'none'"
)
SCORECARDS = ("hoi_scorecards", "interacting_scorecards")
# What a browser would fetch, or a link to another site; relative links are neither.
EXTERNAL_REFERENCE = re.compile(r'src="(?!data:)|href="(?:[a-z][a-z0-9+.-]*:)?//')

REPORT_SUMMARY = Table(
    "summary",
    "the page in figures",
    (
        Column("bytes", pl.Int64, "size of the page", unit="B"),
        Column("pictures", pl.Int64, "images and plots on it"),
        Column("external_references", pl.Int64, "references that need a network; always 0"),
    ),
)


@dataclass(frozen=True)
class Page:
    """The page, and table of REPORT_SUMMARY."""

    html: str
    summary: pl.DataFrame


def build_report(
    store: Store,
    settings: Settings,
    parents: Parents,
    data_docs: Mapping[str, str] | None = None,
    log: Log = print,
) -> Page:
    """Render the page from the versions in force.

    Args:
        parents: by asset, its version in force, or its versions by partition. All are optional:
            sections without a version are left out; hand poses without verdicts are listed.
        data_docs: by asset or "asset/partition", the link to its page of Data Docs, relative to
            the report. It is part of the page, so it must depend on no clock and no absolute path.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "spell": spell}
    script = environment.get_template(SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    verdicts = read_verdicts(parents)
    html = environment.get_template(PAGE).render(
        profile=settings.profile,
        cut=describe_cut_texts(parents),
        policy=POLICY.format(digest=digest),
        script=script,
        answers=_answer(store, settings, parents, verdicts, log),
        gallery=describe_gallery(store, verdicts),
        categories=describe_categories(store, parents),
        rounds=describe_rounds(parents),
        verifier=describe_verifier(parents),
        dataset=first_row(find_version(parents, "hoi_dataset"), "summary"),
        tuning=describe_finetuning(parents),
        scores=describe_hoi_scores(parents),
        pairs=describe_pairs(store, parents),
        scenarios=describe_scenarios(store, parents),
        interacting=describe_interacting_scores(parents),
        human=_describe_human_ratings(parents),
        versions=_list_versions(parents, data_docs or {}),
        superseded=_list_superseded(parents),
    )
    summary = {
        "bytes": len(html.encode()),
        "pictures": html.count("<img "),
        "external_references": len(EXTERNAL_REFERENCE.findall(html)),
    }
    return Page(html=html, summary=REPORT_SUMMARY.frame([summary]))


def _answer(
    store: Store, settings: Settings, parents: Parents, verdicts: pl.DataFrame, log: Log
) -> list[Answer]:
    """The answers at the top; one that nothing published can give is left out."""
    examined = examine_candidates(store, settings, parents, verdicts, log)
    answers = (
        answer_dataset(parents, verdicts, examined),
        answer_rejected(store, parents, verdicts),
        answer_finetuning(parents),
        answer_refinement(parents),
    )
    return [answer for answer in answers if answer is not None]


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _describe_human_ratings(parents: Parents) -> dict[str, Any]:
    """Ratings, win rates and agreement, also of the metrics; empty without votes."""
    ratings = find_version(parents, "human_ratings")
    if ratings is None or ratings.table("rows").is_empty():
        return {}
    scorecards = [find_version(parents, asset) for asset in SCORECARDS]
    whole = pl.col("slice_kind") == "all"
    return {
        "ratings": ratings.table("ratings").filter(whole).to_dicts(),
        "wins": ratings.table("wins").filter(whole).to_dicts(),
        "agreement": ratings.table("agreement").filter(pl.col("rater").is_null()).to_dicts(),
        "equal": ratings.table("equal").height,
        "metrics": [
            row
            for card in scorecards
            if card is not None
            for row in card.table("metric_agreement").to_dicts()
        ],
    }


def _list_versions(
    parents: Parents, data_docs: Mapping[str, str]
) -> list[tuple[str, str, str | None]]:
    """Name, version and link to Data Docs of every version that the page was made from."""
    return [
        (one.name, one.version, data_docs.get(one.name, data_docs.get(one.asset)))
        for one in _published(parents)
    ]


def _list_superseded(parents: Parents) -> list[tuple[str, str, str, str]]:
    """What the page shows that was made from an earlier version of something else it shows.

    Returns:
        (name, the parent's name, version it was made from, version shown). Empty where all that is
        shown belongs together.
    """
    shown = {one.name: one.version for one in _published(parents)}
    return [
        (one.name, parent, version, shown[parent])
        for one in _published(parents)
        for parent, version in sorted((one.inputs | one.parents).items())
        if shown.get(parent, version) != version
    ]


def _published(parents: Parents) -> list[Published]:
    """Every version that the page is made from."""
    return [one for asset in parents for one in find_versions(parents, asset)]
