import io
import os

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.pictures import (
    as_rgb,
    contact_sheet,
    heat_map,
    loss_curve,
    reliability_diagram,
    scorecard_plot,
    to_webp,
)

RED, BLUE = Image.new("RGB", (32, 32), (200, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 200))


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.getcolors(image.width * image.height) or []}  # type: ignore[misc]


def test_every_picture_is_on_the_sheet_in_its_order() -> None:
    sheet = contact_sheet([RED, BLUE, RED], columns=2, cell_px=40)
    middles = [(28, 28), (76, 28), (28, 84)]
    assert sheet.getpixel(middles[0]) == (200, 0, 0)
    assert sheet.getpixel(middles[1]) == (0, 0, 200)
    assert {(200, 0, 0), (0, 0, 200)} <= colours(sheet)
    assert sheet.width < 3 * 48


def test_long_label_is_cut_and_keeps_the_cell_width() -> None:
    short = contact_sheet([RED], ["three words here"], cell_px=120)
    long = contact_sheet([RED], ["word " * 100], cell_px=120)
    unbroken = contact_sheet([RED], ["w" * 500], cell_px=120)
    assert short.width == long.width == unbroken.width
    assert short.height < long.height < short.height + 40


def test_frames_tell_good_from_bad_by_more_than_colour() -> None:
    sheet = contact_sheet([RED, RED], good=[True, False], cell_px=80).convert("L")
    left, right = sheet.crop((8, 8, 88, 88)), sheet.crop((96, 8, 176, 88))
    # The cross in the corner of what was rejected has white in it; a plain frame has none.
    assert left.getextrema()[1] < 250 <= right.getextrema()[1]


def test_sheet_of_no_pictures_says_so() -> None:
    assert contact_sheet([]).width > 0


def test_wide_and_grey_pictures_fit_their_cell() -> None:
    sheet = contact_sheet([Image.new("L", (300, 20), 90)], cell_px=60)
    assert sheet.size == (76, 84)
    assert sheet.getpixel((38, 38)) == (90, 90, 90)


def test_sixteen_bit_grey_is_scaled_and_what_is_transparent_is_white() -> None:
    ramp = Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16))
    stream = io.BytesIO()
    ramp.save(stream, "PNG")
    grey = np.asarray(as_rgb(Image.open(stream)))
    assert grey.mean() == pytest.approx(127, abs=1) and (grey[0, 0] == 0).all()
    hidden = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_rgb(hidden).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(Image.new("LA", (2, 2), (0, 128))).getpixel((0, 0)) == (127, 127, 127)
    with pytest.raises(ValueError, match="no known range"):
        as_rgb(Image.new("F", (2, 2)))


def test_webp_stays_below_its_byte_cap() -> None:
    noise = Image.frombytes("RGB", (700, 500), os.urandom(700 * 500 * 3))
    raw = to_webp(noise, max_bytes=30_000)
    assert len(raw) <= 30_000
    assert opened(raw).width >= 64
    assert opened(to_webp(RED)).size == RED.size
    with pytest.raises(ValueError, match="fits into 10 bytes"):
        to_webp(noise, max_bytes=10)


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
