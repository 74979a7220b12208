"""A store with a small published dataset, to be exported."""

from typing import Any

import polars as pl

from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.ppv.test_packaging import make_pipeline, package

AWKWARD = 'Two  hands “hold” a\tmug,\u00a0é — 手 "x" \\n'


def publish_dataset(store: Store) -> Published:
    """`hoi_dataset` of two categories: 24 pairs, 12 duplicates, 12 rejected candidates; one
    prompt failed and one caption has awkward letters."""
    pipeline: dict[str, Any] = make_pipeline(store)
    hook = (
        pipeline["prompts"]["hook"]
        .table("rows")
        .with_columns(status=pl.lit("accepted"), reason=pl.lit(None, pl.String))
    )
    failed = hook.head(1).with_columns(
        prompt_id=pl.lit("none"),
        prompt=pl.lit(""),
        status=pl.lit("failed"),
        reason=pl.lit("no_reply: the endpoint did not answer"),
    )
    pipeline["prompts"]["hook"] = _publish(
        store, "detailed_prompts", "hook", pl.concat([hook, failed])
    )
    tripod = (
        pipeline["prompts"]["tripod"]
        .table("rows")
        .with_columns(status=pl.lit("accepted"), reason=pl.lit(None, pl.String))
    )
    pipeline["prompts"]["tripod"] = _publish(store, "detailed_prompts", "tripod", tripod)
    verdicts = pipeline["verdicts"]["hook"].table("rows")
    named = verdicts.with_columns(
        prompt=pl.when(pl.col("image_id") == "image-0")
        .then(pl.lit(AWKWARD))
        .otherwise(pl.col("prompt"))
    )
    pipeline["verdicts"]["hook"] = _publish(store, "verified_pairs", "hook", named)
    made_from = {
        one.name: one.version
        for stage in ("verdicts", "prompts")
        for one in pipeline[stage].values()
    }
    with store.stage("hoi_dataset") as staging:
        rows, summary = package(store, staging.path / "dataset", **pipeline)
        staging.write_table("rows", rows)
        staging.write_table("summary", summary)
        return store.publish(staging, made_from, run_id=None)


def _publish(store: Store, asset: str, partition: str, rows: pl.DataFrame) -> Published:
    with store.stage(asset, partition) as staging:
        staging.write_table("rows", rows)
        return store.publish(staging, {}, run_id=None)
