"""Contact sheets and plots for Dagster's metadata and the report.

Colours are Okabe and Ito's (distinct to colour-blind readers); no meaning rests on colour alone.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
INK, SOFT, LINE, PAPER = "#1c2430", "#667085", "#dde2ea", "#ffffff"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
# Okabe and Ito's green and vermilion, darkened for thin lines; also those of the report.
GOOD, BAD = "#00796b", "#b3541e"

GAP_PX, BORDER_PX, LABEL_LINES, LABEL_PX = 8, 4, 3, 12
PLOT_DPI = 110
LEGEND_ROW_INCHES = 0.22
# What Pillow raises for files that are truncated or damaged.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
)
MAX_PICTURE_BYTES = 300_000
SMALLEST_SIDE_PX = 64


def as_rgb(picture: Image.Image) -> Image.Image:
    """A user's picture as 8-bit RGB: rotated by its EXIF tag, 16-bit grey scaled, transparency on
    white.

    Raises:
        ValueError: grey values of no known range. Damaged files raise one of BROKEN.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"grey values of no known range (mode {picture.mode}): save it with 8 or 16 bits"
        )
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, PAPER)
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert("RGB")


def channel_deviation(picture: Image.Image) -> float:
    """The largest standard deviation of a colour channel, 0 to 255, to three decimals.

    About 0 is a blank picture, whatever its colour.
    """
    values = np.asarray(picture.convert("RGB"))
    return round(float(values.std(axis=(0, 1)).max()), 3)


def contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str] | None = None,
    columns: int = 6,
    cell_px: int = 160,
    good: Sequence[bool] | None = None,
) -> Image.Image:
    """Pictures in rows, each in a cell of `cell_px` with its label of up to three lines.

    Args:
        labels: one per picture; a longer one is cut with "…".
        good: one per picture: a green frame marks True, a vermilion one with a cross False.
    """
    images = list(images)
    labels = [""] * len(images) if labels is None else list(labels)
    marks: Sequence[bool | None] = [None] * len(images) if good is None else list(good)
    if not images:
        return _notice("no pictures")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    font = ImageFont.load_default(LABEL_PX)
    line_px = LABEL_PX + 3
    wrapped = [_wrap(label, font, cell_px) for label in labels]
    label_px = line_px * max(len(lines) for lines in wrapped)
    step_x, step_y = cell_px + GAP_PX, cell_px + label_px + 2 * GAP_PX
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (image, lines, mark) in enumerate(zip(images, wrapped, marks, strict=True)):
        left = GAP_PX + place % columns * step_x
        top = GAP_PX + place // columns * step_y
        _paste(sheet, image, left, top, cell_px)
        if mark is not None:
            box = (left, top, left + cell_px - 1, top + cell_px - 1)
            pen.rectangle(box, outline=GOOD if mark else BAD, width=BORDER_PX)
        if mark is False:
            _cross(pen, left + cell_px, top)
        for number, line in enumerate(lines):
            height = top + cell_px + GAP_PX // 2 + number * line_px
            pen.text((left, height), line, fill=INK, font=font)
    return sheet


def to_webp(image: Image.Image, max_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """WebP of at most `max_bytes`: quality is lowered first, then size.

    Raises:
        ValueError: `max_bytes` is too little for any legible picture.
    """
    picture = image.convert("RGB")
    while min(picture.size) >= min(SMALLEST_SIDE_PX, *image.size):
        for quality in (85, 70, 55):
            stream = io.BytesIO()
            picture.save(stream, "WEBP", quality=quality, method=4)
            if stream.tell() <= max_bytes:
                return stream.getvalue()
        width, height = (max(1, length * 3 // 4) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    raise ValueError(f"no legible picture of {image.size} fits into {max_bytes} bytes")


def _in_default_style(draw: Callable[Given, bytes]) -> Callable[Given, bytes]:
    """Plots get into versions: no user's `matplotlibrc` may show in them."""

    @wraps(draw)
    def drawn(*args: Given.args, **kwargs: Given.kwargs) -> bytes:
        from matplotlib import style

        with style.context("default", after_reset=True):
            return draw(*args, **kwargs)

    return drawn


@_in_default_style
def loss_curve(log: pl.DataFrame) -> bytes:
    """PNG of a training log.

    Args:
        log: step and loss; where present, instance_loss, prior_loss and validation_loss are drawn
            as well. Nulls are left out.
    """
    figure, (axes,) = _figure(1, 6.4, 3.4)
    names = {"loss": "training loss", "instance_loss": "instance", "prior_loss": "class prior"}
    drawn = [name for name in names if name in log.columns and log[name].is_not_null().any()]
    if "prior_loss" in drawn and not (log["prior_loss"].fill_null(0) != 0).any():
        drawn = ["loss"]
    for name, color, style in zip(drawn, (BLUE, GREEN, PURPLE), ("-", "--", ":"), strict=False):
        part = log.filter(pl.col(name).is_not_null()).sort("step")
        steps, values = part["step"].to_list(), part[name].to_list()
        if name == "loss":
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axes.plot(
            steps,
            _smooth(values),
            color=color,
            linewidth=2 if name == "loss" else 1.4,
            linestyle=style,
            label=names[name] + ("" if len(steps) < 10 else " (moving mean)"),
        )
    if "validation_loss" in log.columns and log["validation_loss"].is_not_null().any():
        part = log.filter(pl.col("validation_loss").is_not_null()).sort("step")
        steps, values = part["step"].to_list(), part["validation_loss"].to_list()
        axes.plot(steps, values, color=VERMILION, marker="o", markersize=4, label="validation loss")
        best = values.index(min(values))
        axes.annotate(
            f"best, step {steps[best]}",
            (steps[best], values[best]),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=VERMILION,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )
        axes.margins(y=0.15)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


@_in_default_style
def reliability_diagram(bins: pl.DataFrame) -> bytes:
    """PNG: observed frequency against predicted probability, one panel per head.

    Args:
        bins: head, confidence and frequency in [0, 1], n; where present, frequency_low and
            frequency_high are drawn as intervals.
    """
    heads = bins["head"].unique(maintain_order=True).to_list()
    figure, panels = _figure(max(1, len(heads)), 3.6, 3.8)
    most = max(bins["n"].to_list(), default=1)
    for axes, head in zip(panels, heads, strict=False):
        part = bins.filter(pl.col("head") == head).sort("confidence")
        confidence, frequency = part["confidence"].to_list(), part["frequency"].to_list()
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1, label="perfect")
        axes.bar(
            confidence,
            [0.25 * n / most for n in part["n"]],
            width=0.06,
            color=LINE,
            label="share of pairs",
        )
        if {"frequency_low", "frequency_high"} <= set(part.columns):
            axes.vlines(confidence, part["frequency_low"], part["frequency_high"], color=BLUE)
        axes.plot(confidence, frequency, color=BLUE, marker="o", markersize=5, label="measured")
        axes.set_title(f"{head} (n = {part['n'].sum()})", fontsize=10, color=INK)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("mean probability")
        axes.set_ylabel("share that is true")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure)


@_in_default_style
def heat_map(cells: pl.DataFrame, rows: str, columns: str, values: str) -> bytes:
    """PNG of a matrix with its numbers; a missing cell stays white.

    Args:
        cells: long table.
        rows, columns, values: names of its columns; values are numbers or null.
    """
    down = cells[rows].unique(maintain_order=True).to_list()
    across = cells[columns].unique(maintain_order=True).to_list()
    found = {
        (row[rows], row[columns]): row[values]
        for row in cells.iter_rows(named=True)
        if row[values] is not None
    }
    figure, (axes,) = _figure(1, 2.6 + 1.1 * max(1, len(across)), 1.1 + 0.36 * max(1, len(down)))
    low, high = min(found.values(), default=0), max(found.values(), default=1)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    matrix = [[found.get((name, other), math.nan) for other in across] for name in down]
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    if not found:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=SOFT)
        return _png(figure)
    image = axes.imshow(matrix, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for y, line in enumerate(matrix):
        for x, value in enumerate(line):
            if not math.isnan(value):
                bright = (value - low) > 0.55 * (high - low)
                axes.text(
                    x,
                    y,
                    _short(value),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=INK if bright else PAPER,
                )
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03).outline.set_visible(False)
    return _png(figure)


@_in_default_style
def scorecard_plot(card: pl.DataFrame, max_panels: int = 12) -> bytes:
    """PNG: a panel per metric, a row per suite and slice (categories left out), a mark per method
    with its interval.

    Args:
        card: suite, method, slice_kind, slice, metric, mean, ci_low, ci_high; a row of which an
            end of the interval is null has none.
    """
    shown = card.filter((pl.col("slice_kind") != "category") & pl.col("mean").is_not_null())
    metrics = shown["metric"].unique(maintain_order=True).to_list()[:max_panels]
    methods = shown["method"].unique(maintain_order=True).to_list()
    suites = shown["suite"].unique(maintain_order=True).to_list()
    places = sorted(
        shown.select("suite", "slice").unique(maintain_order=True).rows(),
        key=lambda place: suites.index(place[0]),
    )
    across = min(3, max(1, len(metrics)))
    height = 1.1 + 0.26 * max(1, len(places)) * max(1, len(methods)) ** 0.5
    figure, panels = _figure(max(1, len(metrics)), 3.9, height, across=across)
    for number, (axes, metric) in enumerate(zip(panels, metrics, strict=False)):
        for place, method in enumerate(methods):
            part = shown.filter((pl.col("metric") == metric) & (pl.col("method") == method))
            shift = (place - (len(methods) - 1) / 2) * min(0.22, 0.84 / len(methods))
            heights, means = [], []
            for row in part.iter_rows(named=True):
                y = places.index((row["suite"], row["slice"])) + shift
                heights.append(y)
                means.append(row["mean"])
                if row["ci_low"] is not None and row["ci_high"] is not None:
                    color = SERIES[place % len(SERIES)]
                    axes.hlines(y, row["ci_low"], row["ci_high"], color=color, linewidth=1.5)
            axes.plot(
                means,
                heights,
                linestyle="none",
                # The second time round a colour comes with another mark.
                marker=MARKERS[(place + place // len(SERIES)) % len(MARKERS)],
                color=SERIES[place % len(SERIES)],
                markersize=5,
                label=method,
            )
        names = [suite if name == "all" else f"{suite}, {name}" for suite, name in places]
        axes.set_yticks(range(len(places)), names if number % across == 0 else [""] * len(names))
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_title(metric.replace("_", " "), fontsize=10, color=INK)
    if methods:
        _legend_below(figure, panels[0])
    return _png(figure)


def _paste(sheet: Image.Image, image: Image.Image, left: int, top: int, cell_px: int) -> None:
    scale = cell_px / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(small, (left + (cell_px - width) // 2, top + (cell_px - height) // 2))


def _cross(pen: ImageDraw.ImageDraw, right: int, top: int) -> None:
    side = 22
    left, bottom = right - side, top + side
    pen.rectangle((left, top, right - 1, bottom - 1), fill=BAD)
    for ends in (
        (left + 6, top + 6, right - 7, bottom - 7),
        (left + 6, bottom - 7, right - 7, top + 6),
    ):
        pen.line(ends, fill=PAPER, width=3)


def _wrap(text: str, font: Any, width_px: int) -> list[str]:
    """Lines of at most `width_px`; past LABEL_LINES the last one ends with "…"."""
    lines: list[str] = []
    words = text.split()
    while words:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width_px:
            line += f" {words.pop(0)}"
        if len(lines) == LABEL_LINES - 1 and words:
            line, words = f"{line}…", []
        if font.getlength(line) > width_px:
            while line and font.getlength(f"{line}…") > width_px:
                line = line[:-1]
            line += "…"
        lines.append(line)
    return lines


def _notice(text: str) -> Image.Image:
    sheet = Image.new("RGB", (240, 60), PAPER)
    ImageDraw.Draw(sheet).text((16, 20), text, fill=SOFT, font=ImageFont.load_default(16))
    return sheet


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over a window of a tenth of the length, centred, at most 25 wide."""
    half = min(12, len(values) // 20)
    return [
        sum(values[max(0, i - half) : i + half + 1]) / len(values[max(0, i - half) : i + half + 1])
        for i in range(len(values))
    ]


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _figure(
    panels: int, width: float, height: float, across: int | None = None
) -> "tuple[Figure, list[Axes]]":
    """A figure of `panels`, each `width` by `height` inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    across = across or panels
    down = math.ceil(panels / across)
    figure = Figure(figsize=(width * across, height * down), dpi=PLOT_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.set_facecolor(PAPER)
    made = []
    for number in range(panels):
        axes = figure.add_subplot(down, across, number + 1)
        axes.grid(True, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=SOFT, labelcolor=INK, labelsize=9)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        for name, side in axes.spines.items():
            side.set_visible(name in ("left", "bottom"))
            side.set_color(LINE)
        made.append(axes)
    return figure, made


def _legend_below(figure: "Figure", axes: "Axes") -> None:
    """The legend of `axes` below all panels, in as many rows as its names need."""
    handles, names = axes.get_legend_handles_labels()
    for rows in range(1, len(names) + 1):
        columns = math.ceil(len(names) / rows)
        legend = figure.legend(
            handles, names, ncols=columns, loc="outside lower center", frameon=False
        )
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + (rows - 1) * LEGEND_ROW_INCHES)
            return
        legend.remove()


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
