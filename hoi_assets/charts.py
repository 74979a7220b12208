"""Plots for Dagster's metadata and the report.

Colours are Okabe and Ito's (distinct to colour-blind readers); no meaning rests on colour alone.
"""

import io
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import polars as pl

from hoi_assets.palette import INK, PAPER, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
LINE = "#dde2ea"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
PLOT_DPI = 110
LEGEND_ROW_INCHES = 0.22


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
def round_curves(scores: pl.DataFrame) -> bytes:
    """PNG: share accepted, share of the accepted that is right, and share of slices covered, by
    round; a thin line per category, and all together with 95% intervals.

    Args:
        scores: table `ROUND_SCORES`; `all` is the category of all together.
    """
    shown = {
        "accepted_share": "accepted, of the drawn",
        "accepted_right_share": "right, of the accepted",
        "covered_share": "slices covered so far",
    }
    figure, panels = _figure(len(shown), 3.6, 3.4)
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        keys = sorted(set(scores["category"]) - {"all"})
        for number, key in enumerate(keys):
            part = scores.filter(category=key).sort("round").drop_nulls(name)
            axes.plot(
                part["round"],
                part[name],
                color=SERIES[1 + number % (len(SERIES) - 1)],
                marker=MARKERS[1 + number % (len(MARKERS) - 1)],
                markersize=3,
                linewidth=1,
                label=key,
            )
        whole = scores.filter(category="all").sort("round").drop_nulls(name)
        axes.plot(whole["round"], whole[name], color=BLUE, marker="o", linewidth=2, label="all")
        if f"{name}_low" in scores.columns:
            axes.vlines(whole["round"], whole[f"{name}_low"], whole[f"{name}_high"], color=BLUE)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_ylim(0, 1)
        axes.set_xticks(sorted(set(scores["round"])))
        axes.set_xlabel("round")
    _legend_below(figure, panels[0])
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
