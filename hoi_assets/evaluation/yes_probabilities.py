"""VQAScore and Soft-TIFA: the probability of yes, by an endpoint that gives logprobs.

VQAScore (arXiv 2404.01291) asks whether the picture shows the prompt; Soft-TIFA (GenEval 2,
arXiv 2512.16853) takes the mean over the questions to the prompt's parts, here its components'.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hoi_assets.evaluation.benchmark_scores import (
    CANDIDATE,
    CANDIDATE_SCORES,
    SOFT_TIFA,
    VQA_SCORE,
)
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.yes_no import YesNoClient, YesNoQuestion, probabilities_of_yes
from hoi_assets.progress import Log
from hoi_assets.settings import YesNoJudge
from hoi_assets.store.versions import Store

WHOLE_QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
PART_QUESTION = "{question} Please answer yes or no."


def score_by_probability_of_yes(
    store: Store, options: YesNoJudge, rows: Sequence[Mapping[str, Any]], log: Log
) -> pl.DataFrame:
    """Both metrics of each selected image; a reply costs money, so no other is scored.

    Args:
        rows: of `list_candidates`.

    Returns:
        Table of CANDIDATE_SCORES; null where a probability is not known. Soft-TIFA needs all of a
        prompt's.
    """
    selected = [row for row in rows if row["selected"]]
    asked: list[YesNoQuestion] = []
    for row in selected:
        image = ShownImage.of_store(store, row["pixels"])
        asked.append(YesNoQuestion(image, WHOLE_QUESTION.format(prompt=row["prompt"])))
        asked += [
            YesNoQuestion(image, PART_QUESTION.format(question=one)) for one in row["questions"]
        ]
    replies = iter(probabilities_of_yes(asked, YesNoClient(options), store.ledger, log))
    scores = []
    for row in selected:
        whole = next(replies).value
        parts = [next(replies).value for _ in row["questions"]]
        known = [one for one in parts if one is not None]
        mean = sum(known) / len(known) if known and len(known) == len(parts) else None
        for metric, value in ((VQA_SCORE, whole), (SOFT_TIFA, mean)):
            scores.append(
                {name: row[name] for name in CANDIDATE} | {"metric": metric, "value": value}
            )
    missing = sum(one["value"] is None for one in scores)
    if missing:
        log(f"{VQA_SCORE} and {SOFT_TIFA}: {missing} of {len(scores)} values are not available")
    return pl.DataFrame(scores, schema=CANDIDATE_SCORES.schema)
