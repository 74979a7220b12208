"""The published images that a study can be made of, by suite of the scorecard.

`hoi` and `general`: evaluation images of PPV. `interacting`: the image that each method of
DetailScribe selected for a benchmark row. `labels`: candidates, to be accepted or rejected.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import get_args

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.rating.study import Mode, Study
from hoi_assets.rating.study_making import StudyImage, make_study
from hoi_assets.store.places import is_orphan
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store

HOI, GENERAL, INTERACTING, LABELS = SUITES = ("hoi", "general", "interacting", "labels")
VERIFY: Mode = "verify"
# Partitions that there are; None: all that are published.
Known = Collection[str] | None
CANDIDATE = "candidate"

STUDY_IMAGES = Table(
    "study_images",
    "one published image that a study can show",
    (
        Column("suite", pl.String, "hoi, general, interacting or labels"),
        Column("method", pl.String, "what drew it"),
        Column("prompt_id", pl.String, "its prompt", nullable=True),
        Column("prompt", pl.String, "the prompt's text"),
        Column("scenario", pl.String, "InterActing's scenario; null elsewhere", nullable=True),
        Column("category", pl.String, "hand pose; null elsewhere", nullable=True),
        Column("pixels", pl.String, "digest of its pixels"),
        Column("seed", pl.Int64, "seed of its noise", nullable=True),
    ),
)


def find_evaluation_images(store: Store, known: Known = None) -> pl.DataFrame:
    """The images of `hoi_evaluation_images`, of both suites: table of STUDY_IMAGES."""
    rows = _read_drawn(store, "hoi_evaluation_images", known)
    named = rows.rename({"evaluation_prompt_id": "prompt_id"}, strict=False)
    # A general prompt belongs to no category, whichever draws it.
    hand = pl.when(pl.col("suite") == HOI).then(pl.col("category"))
    return _as_study_images(named.with_columns(hand.alias("category")) if rows.height else named)


def find_interacting_images(store: Store, known: Known = None) -> pl.DataFrame:
    """The image that each method selected for each row of InterActing: table of STUDY_IMAGES."""
    assets = ("initial_images", "refined_images", "baseline_images")
    tables = [_read_drawn(store, asset, known) for asset in assets]
    parts = [
        _as_study_images(
            table.filter("selected").rename({"row_id": "prompt_id"}), suite=INTERACTING
        )
        for table in tables
        if table.height
    ]
    return pl.concat([pl.DataFrame(schema=STUDY_IMAGES.schema), *parts])


def find_candidate_images(store: Store, known: Known = None) -> pl.DataFrame:
    """The drawn candidates, all of one method: table of STUDY_IMAGES."""
    drawn = _read_drawn(store, "candidate_images", known)
    return _as_study_images(drawn, suite=LABELS, method=CANDIDATE)


def find_images(
    store: Store, suite: str, methods: Sequence[str] | None = None, known: Known = None
) -> pl.DataFrame:
    """What a study of that suite can show: table of STUDY_IMAGES, sorted by prompt and method.

    Args:
        methods: only these; None: all there are.
        known: partitions that there are: those of categories removed from the taxonomy are not
            offered. None: all that are published.

    Raises:
        HoiError: no such suite or method, or nothing of the suite is published.
    """
    if suite not in SUITES:
        raise HoiError(f"no suite {suite!r}", f"name one of: {', '.join(SUITES)}")
    if suite == INTERACTING:
        found = find_interacting_images(store, known)
    elif suite == LABELS:
        found = find_candidate_images(store, known)
    else:
        found = find_evaluation_images(store, known).filter(suite=suite)
    if found.is_empty():
        raise HoiError(f"no picture of suite {suite!r} is published", "`hoi run` makes them")
    there = sorted(found["method"].unique())
    unknown = [method for method in methods or () if method not in there]
    if unknown:
        raise HoiError(
            f"suite {suite!r} has no method {unknown[0]!r}", f"name some of: {', '.join(there)}"
        )
    chosen = found.filter(pl.col("method").is_in(list(methods or there)))
    return chosen.sort("prompt_id", "method", "seed", "pixels")


def make_suite_study(
    store: Store,
    folder: Path,
    suite: str,
    mode: Mode,
    methods: Sequence[str] | None = None,
    prompts: int | None = None,
    seed: int = 0,
    known: Known = None,
) -> Study:
    """Make a study of published images in `folder`; raises as `find_images` and `make_study`.

    A pairwise study takes one image of each method for a prompt: that of the lowest seed.
    """
    if (mode == VERIFY) != (suite == LABELS) or mode not in get_args(Mode):
        raise HoiError(
            f"no {mode} study is made of suite {suite!r}",
            f"mode {VERIFY} goes with suite {LABELS}, the other modes with the other suites",
        )
    if prompts is not None and prompts < 1:
        raise HoiError(f"{prompts} prompts do not make a study", "ask for one or more")
    rows = find_images(store, suite, methods, known)
    if mode == "pairwise":
        rows = rows.unique(["prompt_id", "method"], keep="first", maintain_order=True)
    images = [
        StudyImage(
            prompt=row["prompt"],
            method=row["method"],
            image=row["pixels"],
            prompt_id=row["prompt_id"],
            scenario=row["scenario"],
            category=row["category"],
            suite=row["suite"],
        )
        for row in rows.iter_rows(named=True)
    ]
    return make_study(folder, mode, images, images=store.images, seed=seed, prompts=prompts)


def _read_drawn(store: Store, asset: str, known: Known) -> pl.DataFrame:
    """Rows with an image, of published partitions; without columns where there is none."""
    keys = [key for key in store.partitions(asset) if not is_orphan(key, known)]
    tables = [store.require(asset, key).table("rows") for key in keys]
    drawn = [table.filter(pl.col("pixels").is_not_null()) for table in tables]
    return pl.concat(drawn, how="diagonal_relaxed") if drawn else pl.DataFrame()


def _as_study_images(table: pl.DataFrame, **constant: str) -> pl.DataFrame:
    """The columns of STUDY_IMAGES: constants, those of the table, else null."""
    values: Mapping[str, pl.Expr] = {
        **{name: pl.lit(None) for name in STUDY_IMAGES.schema if name not in table.columns},
        **{name: pl.lit(value) for name, value in constant.items()},
    }
    if table.is_empty():
        return pl.DataFrame(schema=STUDY_IMAGES.schema)
    return table.select(
        values.get(name, pl.col(name)).cast(dtype).alias(name)
        for name, dtype in STUDY_IMAGES.schema.items()
    )
