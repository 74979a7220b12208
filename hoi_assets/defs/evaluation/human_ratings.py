"""From rating pages to a table: what people said of the pictures, and how far they agree."""

import polars as pl

from hoi_assets.publishing.stage import Markdown, Result, Table, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "evaluation"


@stage(
    "human_ratings",
    code_version="1",
    recipe=[
        "hoi_assets/rating/study.py",
        "hoi_assets/rating/vote_tables.py",
        "hoi_assets/rating/votes.py",
        "hoi_assets/evaluation/bradley_terry.py",
        "hoi_assets/evaluation/human_agreement.py",
        "hoi_assets/evaluation/human_ratings.py",
        "hoi_assets/evaluation/vote_slices.py",
        "hoi_assets/statistics.py",
    ],
    settings=["evaluation"],
    inputs=lambda work: {"votes": _votes_digest(work)},
    group=GROUP,
    description="All votes of all studies (`hoi rate`), superseded and faulty ones rejected with "
    "the reason; mean ratings, Bradley-Terry win rates and Krippendorff's alpha with intervals. "
    "Empty without studies.",
)
def human_ratings(work: Work, out: Staging) -> Result:
    from hoi_assets.evaluation.human_agreement import measure_rater_agreement
    from hoi_assets.evaluation.human_ratings import (
        average_ratings,
        estimate_win_rates,
        head_to_head,
    )
    from hoi_assets.rating.vote_tables import collect_votes

    found = collect_votes(work.store.home)
    votes, samples = found.votes, work.settings.evaluation.bootstrap_samples
    tables = {
        "rows": votes,
        "studies": found.studies,
        # Pairs of equal pixels: ties that nobody was asked about, in no figure below.
        "equal": found.equal,
        "ratings": average_ratings(votes, samples),
        "wins": estimate_win_rates(votes, samples),
        "head_to_head": head_to_head(votes, samples),
        "agreement": measure_rater_agreement(votes, samples),
    }
    for name, table in tables.items():
        out.write_table(name, table)
    lines = votes.unique(["study", "line"], keep="first", maintain_order=True)
    work.record("vote", lines.with_columns(vote=pl.format("{}:{}", "study", "line")))
    work.record("study", found.studies)
    accepted = lines.filter(status="accepted")
    return Result(
        metadata={
            "votes": accepted.height,
            "raters": accepted.select("study", "rater").n_unique(),
            "studies": Table(found.studies.to_dicts()),
            "ratings": Table(_whole(tables["ratings"])),
            "wins": Table(_whole(tables["wins"])),
            "agreement": Table(tables["agreement"].to_dicts()),
            **({} if votes.height else {"note": Markdown(NOBODY)}),
        }
    )


NOBODY = (
    "Nobody has voted yet: `hoi rate make NAME --suite hoi` makes a study, `hoi rate links NAME "
    "RATER` a link for each rater, `hoi rate serve NAME` serves it."
)


def _whole(table: pl.DataFrame) -> list[dict[str, object]]:
    return table.filter(slice_kind="all").drop("slice_kind", "slice").to_dicts()


def _votes_digest(work: Work) -> str:
    from hoi_assets.rating.vote_tables import votes_digest

    return votes_digest(work.store.home)
