"""Which published pictures a study can be made of, by suite of the scorecard.

`hoi` and `general`: evaluation images of the first line. `interacting`: what each method of the
second line chose for a benchmark row. `labels`: candidates, to be accepted or rejected.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.rating.study import Mode, Picture, Study, make_study
from hoi_assets.store.versions import Store

HOI, GENERAL, INTERACTING, LABELS = SUITES = ("hoi", "general", "interacting", "labels")
VERIFY: Mode = "verify"
CANDIDATE = "candidate"

OFFERED: dict[str, Any] = {
    "suite": pl.String,
    "method": pl.String,
    "prompt_id": pl.String,
    "prompt": pl.String,
    "scenario": pl.String,
    "category": pl.String,
    "pixels": pl.String,
    "seed": pl.Int64,
}


def evaluation_pictures(store: Store) -> pl.DataFrame:
    """The drawn pictures of `hoi_evaluation_images`, of both of its suites: table of OFFERED."""
    rows = _drawn(store, "hoi_evaluation_images")
    named = rows.rename({"evaluation_prompt_id": "prompt_id"}, strict=False)
    # A general prompt belongs to no category, whichever draws it.
    hand = pl.when(pl.col("suite") == HOI).then(pl.col("category"))
    return _offered(named.with_columns(hand.alias("category")) if rows.height else named)


def interacting_pictures(store: Store) -> pl.DataFrame:
    """The pictures that each method of the second line chose: table of OFFERED."""
    assets = ("initial_images", "refined_images", "baseline_images")
    tables = [_drawn(store, asset) for asset in assets]
    parts = [
        _offered(table.filter("selected").rename({"row_id": "prompt_id"}), suite=INTERACTING)
        for table in tables
        if table.height
    ]
    return pl.concat([pl.DataFrame(schema=OFFERED), *parts])


def candidate_pictures(store: Store) -> pl.DataFrame:
    """The drawn candidates, all by one method: table of OFFERED."""
    return _offered(_drawn(store, "candidate_images"), suite=LABELS, method=CANDIDATE)


def offered(store: Store, suite: str, methods: Sequence[str] | None = None) -> pl.DataFrame:
    """What a study of that suite can show: table of OFFERED, in an order of its own.

    Args:
        methods: only these; None: all there are.

    Raises:
        HoiError: no such suite or method, or nothing of the suite is published.
    """
    if suite not in SUITES:
        raise HoiError(f"no suite {suite!r}", f"name one of: {', '.join(SUITES)}")
    if suite == INTERACTING:
        found = interacting_pictures(store)
    elif suite == LABELS:
        found = candidate_pictures(store)
    else:
        found = evaluation_pictures(store).filter(suite=suite)
    if found.is_empty():
        raise HoiError(f"no picture of suite {suite!r} is published", "`hoi run` makes them")
    known = sorted(found["method"].unique())
    unknown = [method for method in methods or () if method not in known]
    if unknown:
        raise HoiError(
            f"suite {suite!r} has no method {unknown[0]!r}", f"name some of: {', '.join(known)}"
        )
    chosen = found.filter(pl.col("method").is_in(list(methods or known)))
    return chosen.sort("prompt_id", "method", "seed", "pixels")


def make_suite_study(
    store: Store,
    folder: Path,
    suite: str,
    mode: Mode,
    methods: Sequence[str] | None = None,
    prompts: int | None = None,
    seed: int = 0,
) -> Study:
    """Make a study of published pictures in `folder`; raises as `offered` and `make_study`.

    A pairwise study takes one picture of each method for a prompt: the one of the lowest seed.
    """
    if (mode == VERIFY) != (suite == LABELS) or mode not in get_args(Mode):
        raise HoiError(
            f"no {mode} study is made of suite {suite!r}",
            f"mode {VERIFY} goes with suite {LABELS}, the other modes with the other suites",
        )
    if prompts is not None and prompts < 1:
        raise HoiError(f"{prompts} prompts make no study", "ask for one or more")
    rows = offered(store, suite, methods)
    if mode == "pairwise":
        rows = rows.unique(["prompt_id", "method"], keep="first", maintain_order=True)
    pictures = [
        Picture(
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
    return make_study(folder, mode, pictures, images=store.images, seed=seed, prompts=prompts)


def _drawn(store: Store, asset: str) -> pl.DataFrame:
    """Rows with a picture, of all published partitions; without columns where there is none."""
    tables = [store.require(asset, key).table("rows") for key in store.partitions(asset)]
    drawn = [table.filter(pl.col("pixels").is_not_null()) for table in tables]
    return pl.concat(drawn, how="diagonal_relaxed") if drawn else pl.DataFrame()


def _offered(table: pl.DataFrame, **constant: str) -> pl.DataFrame:
    """The columns of OFFERED: constants, those of the table, else null."""
    values: Mapping[str, pl.Expr] = {
        **{name: pl.lit(None) for name in OFFERED if name not in table.columns},
        **{name: pl.lit(value) for name, value in constant.items()},
    }
    if table.is_empty():
        return pl.DataFrame(schema=OFFERED)
    return table.select(
        values.get(name, pl.col(name)).cast(dtype).alias(name) for name, dtype in OFFERED.items()
    )
