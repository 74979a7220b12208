"""What the signals beside the verifier say of evaluation images, as metrics.

As for every metric, the scorecard says how far they agree with the raters.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hoi_assets.engines.hand_landmarks import cached_presence
from hoi_assets.evaluation.run_metrics import CARRIED
from hoi_assets.evaluation.scorecards import SCORES
from hoi_assets.llm.hand_anatomy import EndpointAnatomy, ask_anatomy
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.progress import Log
from hoi_assets.settings import Settings, resolve_path
from hoi_assets.store.versions import Store

ANATOMY, LANDMARKS = "anatomy", "landmarks"


def score_hands(store: Store, settings: Settings, images: pl.DataFrame, log: Log) -> pl.DataFrame:
    """The metrics `anatomy` and `landmarks`, each where its section is set.

    Args:
        images: rows of `hoi_evaluation_images` that were drawn; those of suite `general` have no
            hand and are left out.

    Returns:
        Table of SCORES; null where a judge cannot say.
    """
    rows = images.filter(pl.col("suite") != "general").to_dicts()
    pixels = list(dict.fromkeys(row["pixels"] for row in rows))
    found: dict[str, dict[str, float | None]] = {}
    if settings.anatomy is not None and pixels:
        shown = [ShownImage.of_store(store, one) for one in pixels]
        said = ask_anatomy(shown, EndpointAnatomy(settings.anatomy), store.ledger, log)
        found[ANATOMY] = {one.pixels: one.p_whole for one in said}
    if settings.landmarks is not None and pixels:
        folder = resolve_path(settings.landmarks.folder)
        found[LANDMARKS] = cached_presence(store, folder, pixels, log)
    return pl.DataFrame(
        [_score(row, metric, values) for metric, values in found.items() for row in rows],
        schema=SCORES.schema,
    )


def _score(row: dict[str, Any], metric: str, values: dict[str, float | None]) -> dict[str, Any]:
    carried: Sequence[str] = CARRIED
    return {
        **dict.fromkeys(SCORES.schema),
        **{name: row.get(name) for name in carried},
        "metric": metric,
        "value": values[row["pixels"]],
    }
