"""Plots show what their tables hold, inside the picture, in the same bytes."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.charts import heat_map, loss_curve, reliability_diagram, scorecard_plot


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.getcolors(image.width * image.height) or []}  # type: ignore[misc]


def test_loss_curve_draws_what_the_log_has() -> None:
    steps = list(range(1, 31))
    plain = pl.DataFrame({"step": steps, "loss": [1 / step for step in steps]})
    validated = plain.with_columns(
        validation_loss=pl.when(pl.col("step") % 10 == 0).then(pl.col("loss"))
    )
    assert (213, 94, 0) not in colours(opened(loss_curve(plain)))
    assert (213, 94, 0) in colours(opened(loss_curve(validated)))


def test_reliability_diagram_has_a_panel_per_head() -> None:
    one = pl.DataFrame(
        {"head": ["a", "a"], "confidence": [0.2, 0.8], "frequency": [0.1, 0.9], "n": [5, 9]}
    )
    two = pl.concat([one, one.with_columns(head=pl.lit("b"))])
    assert opened(reliability_diagram(two)).width > 1.8 * opened(reliability_diagram(one)).width


def test_heat_map_leaves_a_missing_cell_white_and_bears_no_data() -> None:
    cells = pl.DataFrame({"r": ["x", "x"], "c": ["a", "b"], "v": [0.5, None]})
    assert opened(heat_map(cells, rows="r", columns="c", values="v")).width > 100
    assert opened(heat_map(cells.clear(), rows="r", columns="c", values="v")).width > 100


def test_scorecard_has_a_panel_per_metric_and_bears_missing_intervals() -> None:
    rows = [
        {
            "suite": "hoi",
            "method": method,
            "slice_kind": "all",
            "slice": "all",
            "metric": metric,
            "mean": 0.5,
            "ci_low": 0.4 if method == "base" else None,
            "ci_high": 0.6 if method == "base" else None,
        }
        for method in ("base", "finetuned")
        for metric in ("clip_score", "image_reward")
    ]
    card = pl.DataFrame(rows)
    one = card.filter(pl.col("metric") == "clip_score")
    assert opened(scorecard_plot(card)).width > 1.8 * opened(scorecard_plot(one)).width
    assert opened(scorecard_plot(card.clear())).width > 100


@pytest.mark.parametrize("metrics", [1, 4])
def test_legend_of_many_methods_stays_inside_the_picture(metrics: int) -> None:
    rows = [
        {
            **{"suite": "interacting", "slice_kind": "all", "slice": "all"},
            **{"metric": f"metric_{metric}", "method": f"a_method_with_a_name_{method}"},
            **{"mean": 0.5, "ci_low": 0.4, "ci_high": 0.6},
        }
        for metric in range(metrics)
        for method in range(12)
    ]
    grey = np.asarray(opened(scorecard_plot(pl.DataFrame(rows))).convert("L"))
    # Ink that touches an edge would be a name or mark that was cut.
    for edge in (grey[:, :4], grey[:, -4:], grey[-4:]):
        assert edge.min() == 255


def test_same_numbers_give_the_same_bytes() -> None:
    log = pl.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    assert loss_curve(log) == loss_curve(log)
