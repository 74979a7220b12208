"""From rating pages to tables: human ratings of the images, and how far raters agree."""

import polars as pl

from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.evaluation.human_agreement import RATER_AGREEMENT
from hoi_assets.evaluation.human_ratings import HEAD_TO_HEAD, MEAN_RATINGS, WIN_RATES
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    column_exists,
    in_set,
    not_null,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Markdown, Table
from hoi_assets.rating.vote_tables import EQUAL_PAIRS, STUDIES, VOTE_ROWS
from hoi_assets.store.versions import Staging

NO_VOTES = (
    "No votes yet: `hoi rate make NAME --suite hoi` makes a study, `hoi rate links NAME "
    "RATER` a link for each rater, `hoi rate serve NAME` serves it."
)

# There may be no votes yet: every expectation holds on empty tables too.
HUMAN_RATINGS_SUITE = suite(
    rows=[
        unique("study", "line", "method_a", "method_b"),
        not_null("study", "mode", "line"),
        in_set("status", ["accepted", "rejected"]),
        unexpected_rows("ratings_outside_1_to_5", "mode = 'rating' and score not between 1 and 5"),
        unexpected_rows(
            "accepted_without_an_answer",
            "status = 'accepted' and score is null and choice is null",
        ),
        unexpected_rows(
            "accepted_of_unknown_images",
            "status = 'accepted' and (image_a is null or method_a is null"
            " or prompt_id is null or rater is null)",
        ),
        unexpected_rows("rejected_without_reason", "status = 'rejected' and reason is null"),
    ],
    studies=[
        unique("study"),
        unexpected_rows("unreadable_studies", "status = 'failed'", blocking=False),
    ],
    equal=[column_exists("study", "prompt_id", "method_a", "method_b")],
    ratings=[between("mean", 0, 5, nullable=True), between("n", 1)],
    wins=[between("win_rate", 0, 1, nullable=True), between("n", 1)],
    head_to_head=[between("win_rate_a", 0, 1)],
    agreement=[between("value", max_value=1, nullable=True)],
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
    from hoi_assets.rating.shared_studies import studies_home
    from hoi_assets.rating.vote_tables import collect_votes

    found = collect_votes(studies_home(context.store))
    votes, samples = found.votes, context.settings.evaluation.bootstrap_samples
    tables = {
        "rows": votes,
        "studies": found.studies,
        # Pairs of equal pixels are ties that no rater was shown; no figure below counts them.
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
    from hoi_assets.rating.shared_studies import studies_home
    from hoi_assets.rating.vote_tables import votes_digest

    return votes_digest(studies_home(context.store))
