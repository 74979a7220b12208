"""Columns that several tables of scores and of human ratings have."""

import polars as pl

from hoi_assets.store.tables import Column

SUITE = Column("suite", pl.String, "suite of prompts: hoi, general or interacting")
VOTED_SUITE = Column(
    "suite", pl.String, "suite of the pictures; null for a study of no suite", nullable=True
)
SLICE_KIND = Column(
    "slice_kind", pl.String, "what the slice is a value of: all, category, scenario or combination"
)
SLICE = Column("slice", pl.String, "the slice: all, a hand pose, a scenario, seen or unseen")
METRIC = Column("metric", pl.String, "name of the metric; higher is better")
METHOD = Column("method", pl.String, "what drew the pictures")
QUESTION = Column("question", pl.String, "key of the question that raters answered")
MODE = Column("mode", pl.String, "mode of the study: rating, pairwise or verify")
PROMPTS = Column("prompts", pl.Int64, "prompts that the value is over; they are what is resampled")
CI_LOW = Column(
    "ci_low", pl.Float64, "lower end of the 95% interval; null with too few values", nullable=True
)
CI_HIGH = Column(
    "ci_high", pl.Float64, "upper end of the 95% interval; null with too few values", nullable=True
)
