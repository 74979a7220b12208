"""From rating pages to tables: what people said of the images, and how far they agree."""

import polars as pl

from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.evaluation.human_agreement import RATER_AGREEMENT
from hoi_assets.evaluation.human_ratings import HEAD_TO_HEAD, MEAN_RATINGS, WIN_RATES
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    columns,
    measured,
    not_null,
    one_of,
    suite,
    unique,
)
from hoi_assets.publishing.metadata import Markdown, Table
from hoi_assets.rating.vote_tables import EQUAL_PAIRS, STUDIES, VOTE_ROWS
from hoi_assets.store.versions import Staging

NO_VOTES = (
    "Nobody has voted yet: `hoi rate make NAME --suite hoi` makes a study, `hoi rate links NAME "
    "RATER` a link for each rater, `hoi rate serve NAME` serves it."
)

# Nobody may have voted yet: every expectation holds on empty tables too.
HUMAN_RATINGS_SUITE = suite(
    unique("rows", "study", "line", "method_a", "method_b"),
    not_null("rows", "study", "mode", "line"),
    one_of("rows", "status", ["accepted", "rejected"]),
    measured(
        "rows",
        "ratings_outside_1_to_5",
        "coalesce(sum(case when mode = 'rating' and score not between 1 and 5 then 1 else 0 end),"
        " 0)",
        high=0,
    ),
    measured(
        "rows",
        "accepted_without_an_answer",
        "coalesce(sum(case when status = 'accepted' and score is null and choice is null"
        " then 1 else 0 end), 0)",
        high=0,
    ),
    measured(
        "rows",
        "accepted_of_unknown_images",
        "coalesce(sum(case when status = 'accepted' and (image_a is null or method_a is null"
        " or prompt_id is null or rater is null) then 1 else 0 end), 0)",
        high=0,
    ),
    measured(
        "rows",
        "rejected_without_reason",
        "coalesce(sum(case when status = 'rejected' and reason is null then 1 else 0 end), 0)",
        high=0,
    ),
    unique("studies", "study"),
    measured(
        "studies",
        "unreadable_studies",
        "coalesce(sum(case when status = 'failed' then 1 else 0 end), 0)",
        high=0,
        blocking=False,
    ),
    columns("equal", "study", "prompt_id", "method_a", "method_b"),
    between("ratings", "mean", 0, 5, nullable=True),
    between("ratings", "n", low=1),
    between("wins", "win_rate", 0, 1, nullable=True),
    between("wins", "n", low=1),
    between("head_to_head", "win_rate_a", 0, 1),
    between("agreement", "value", high=1, nullable=True),
)


@published_asset(
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"polars"},
    code_version="1",
    suite=HUMAN_RATINGS_SUITE,
    tables=[
        VOTE_ROWS,
        STUDIES,
        EQUAL_PAIRS,
        MEAN_RATINGS,
        WIN_RATES,
        HEAD_TO_HEAD,
        RATER_AGREEMENT,
    ],
    settings=["evaluation"],
    external_inputs=lambda context: {"votes": _votes_digest(context)},
)
def human_ratings(context: StageContext, staging: Staging) -> Result:
    """All votes of all studies (`hoi rate`), superseded and faulty ones rejected with the reason;
    mean ratings, Bradley-Terry win rates and Krippendorff's alpha with intervals. Empty without
    studies."""
    from hoi_assets.evaluation.human_agreement import measure_rater_agreement
    from hoi_assets.evaluation.human_ratings import (
        average_ratings,
        estimate_win_rates,
        head_to_head,
    )
    from hoi_assets.rating.vote_tables import collect_votes

    found = collect_votes(context.store.home)
    votes, samples = found.votes, context.settings.evaluation.bootstrap_samples
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
        staging.write_table(name, table)
    lines = votes.unique(["study", "line"], keep="first", maintain_order=True)
    context.record("vote", lines.with_columns(vote=pl.format("{}:{}", "study", "line")))
    context.record("study", found.studies)
    accepted = lines.filter(status="accepted")
    return Result(
        metadata={
            "votes": accepted.height,
            "raters": accepted.select("study", "rater").n_unique(),
            "studies": Table(found.studies.to_dicts()),
            "ratings": Table(_whole(tables["ratings"])),
            "wins": Table(_whole(tables["wins"])),
            "agreement": Table(tables["agreement"].to_dicts()),
            **({} if votes.height else {"note": Markdown(NO_VOTES)}),
        }
    )


def _whole(table: pl.DataFrame) -> list[dict[str, object]]:
    return table.filter(slice_kind="all").drop("slice_kind", "slice").to_dicts()


def _votes_digest(context: StageContext) -> str:
    from hoi_assets.rating.vote_tables import votes_digest

    return votes_digest(context.store.home)
