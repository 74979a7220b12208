"""Columns that several of DetailScribe's published tables share."""

import polars as pl

from hoi_assets.store.tables import Column

REPLY_COLUMNS = (
    Column("model", pl.String, "what answered: a model's name or digest, or the rules' name"),
    Column("template_version", pl.String, "version of the prompt templates, or of the rules"),
    Column("input_tokens", pl.Int64, "tokens sent; null if unknown", "tokens", nullable=True),
    Column("output_tokens", pl.Int64, "tokens received; null if unknown", "tokens", nullable=True),
    Column("cost_usd", pl.Float64, "price of the calls; null if unknown", "USD", nullable=True),
)
STATUS_COLUMNS = (
    Column("status", pl.String, "accepted or failed"),
    Column("reason", pl.String, "`code: detail` of a failed row", nullable=True),
)
COMPONENT_COLUMNS = (
    Column("subject", pl.String, "what acts"),
    Column("relation", pl.String, "a verb with its preposition"),
    Column("object", pl.String, "what is acted on; empty if nothing is"),
    Column("question", pl.String, "yes/no question about the image; yes: the component is there"),
)
