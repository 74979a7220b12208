"""Baseline `rewrite`: the prompt is rewritten before any image is seen, then drawn from noise."""

from collections.abc import Sequence
from dataclasses import replace

from hoi_assets.detailscribe.baselines.compute import draw_candidates, new_images
from hoi_assets.detailscribe.baselines.rewriter import EndpointRewriter, rewrite_prompts
from hoi_assets.detailscribe.image_rows import REWRITE, Record, failed_row, redrawable_row
from hoi_assets.detailscribe.prompt_extension import NoRoom, extend_prompt
from hoi_assets.detailscribe.selection import ComponentsByRow
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import multi_seed_specs
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

# The rewritten prompt, or None and the reason.
Rewriting = tuple[str | None, str | None]


def draw_rewritten_prompts(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    log: Log,
) -> tuple[dict[str, list[Record]], list[Record]]:
    """Images of the rewritten prompts.

    Args:
        initial: rows of `initial_images` that can be refined. components: by row_id.

    Returns:
        Candidates by row_id, and a failed row for each prompt that was not rewritten.
    """
    wanted: dict[str, list[ImageSpec]] = {}
    failed: list[Record] = []
    rewritten = _rewrite(store, settings, initial, components, log)
    for row in initial:
        prompt, reason = rewritten[row["row_id"]]
        if prompt is None:
            failed.append(failed_row(row, REWRITE, f"rewrite: {reason}"))
            continue
        first = replace(redrawable_row(row, settings), prompt=prompt)
        wanted[row["row_id"]] = multi_seed_specs(first, new_images(settings, first)[REWRITE])
    able = [row for row in initial if row["row_id"] in wanted]
    label = "rewritten prompts"
    return draw_candidates(store, settings, able, wanted, REWRITE, 0, label, log), failed


def _rewrite(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    log: Log,
) -> dict[str, Rewriting]:
    """Rewritings by row_id: by `rewriter.endpoint` where it is set, else the prompt followed by its
    components."""
    if settings.rewriter.endpoint is not None:
        rewriter = EndpointRewriter(settings.rewriter)
        found = rewrite_prompts((row["prompt"] for row in initial), rewriter, store.ledger, log)
        return {
            row["row_id"]: (found[row["prompt"]].value, found[row["prompt"]].reason)
            for row in initial
        }
    rewritten: dict[str, Rewriting] = {}
    for row in initial:
        statements = [one.statement for one in components[row["row_id"]]]
        try:
            prompt = extend_prompt(row["prompt"], statements, settings.rewriter.max_words)
        except NoRoom:
            prompt = row["prompt"]  # too long for additions: it stays as it is
        rewritten[row["row_id"]] = (prompt, None)
    return rewritten
