"""What the assets `hoi_scorecards` and `interacting_scorecards` publish, made from scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from hoi_assets.evaluation.human_scorecard import score_votes
from hoi_assets.evaluation.scorecards import compare_methods, make_scorecard
from hoi_assets.settings import Evaluation
from hoi_assets.statistics import Numbers

# As the votes name the columns of a score.
_AS_VOTES = {"evaluation_prompt_id": "prompt_id", "pixels": "image"}


@dataclass(frozen=True)
class SuiteScores:
    """The scorecard of one asset and all that it is made from.

    Attributes:
        scores: table of SCORES.
        scorecard: table of SCORECARD, human ratings included.
        comparisons: table of COMPARISONS.
        metric_agreement: table of METRIC_AGREEMENT.
        candidates: table of CANDIDATE_SCORES; InterActing only.
        ratings: table of JUDGE_RATINGS; InterActing only, and only where an endpoint is the judge.
        costs: see `average_costs`; InterActing only. It holds wall time, so it is not published.
    """

    scores: pl.DataFrame
    scorecard: pl.DataFrame
    comparisons: pl.DataFrame
    metric_agreement: pl.DataFrame
    candidates: pl.DataFrame | None = None
    ratings: pl.DataFrame | None = None
    costs: pl.DataFrame | None = None

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables to publish, by name."""
        tables = {
            "scores": self.scores,
            "scorecard": self.scorecard,
            "comparisons": self.comparisons,
            "metric_agreement": self.metric_agreement,
            "candidates": self.candidates,
            "ratings": self.ratings,
        }
        return {name: table for name, table in tables.items() if table is not None}


def summarise_scores(
    scores: pl.DataFrame,
    votes: pl.DataFrame,
    config: Evaluation,
    reference: Mapping[str, Numbers],
    selection_rules: Mapping[str, str],
    compute: Mapping[str, str],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> SuiteScores:
    """Scorecard, comparisons and agreement with the raters, from scores.

    Args:
        scores: table of SCORES.
        votes: `rows` of `human_ratings`; those on images of other suites are left out.
        reference: scores of the reference set by metric.
        selection_rules, compute: by method.
        pairs: the methods to compare; None: all of them.
    """
    card = make_scorecard(scores, config, reference, selection_rules, compute)
    human = score_votes(
        votes, scores.rename(_AS_VOTES), config.bootstrap_samples, selection_rules, compute
    )
    return SuiteScores(
        scores=scores,
        scorecard=pl.concat([card, human.scorecard]),
        comparisons=compare_methods(scores, config, pairs),
        metric_agreement=human.metric_agreement,
    )
