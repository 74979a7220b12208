"""Expectations that several suites share.

A collapsed, empty, duplicated or wrongly shaped version blocks. Single faulty rows do not: their
stage rejects or fails them with a reason, and a suite bounds their share only. Thresholds that one
may want to move are in the settings (`gates`).
"""

from collections.abc import Sequence

from hoi_assets.publishing.expectations import (
    Rule,
    between,
    measured,
    not_null,
    one_of,
    rows,
    share,
    suite,
    unique,
)

FAILED = "status = 'failed'"
ACCEPTED = "sum(case when status = 'accepted' then 1 else 0 end)"
ONE_CATEGORY = measured("rows", "categories", "count(distinct category)", 1, 1)
ONE_SCENARIO = measured("rows", "scenarios", "count(distinct scenario)", 1, 1)

_SELECTED = "count(distinct case when selected then concat(row_id, ' ', method) end)"
# One choice for each row and method that has a candidate to choose from.
ONE_SELECTED = suite(
    measured(
        "rows",
        "chosen_twice",
        f"sum(case when selected then 1 else 0 end) - {_SELECTED}",
        high=0,
    ),
    measured(
        "rows",
        "nothing_chosen",
        "count(distinct case when status = 'accepted' then concat(row_id, ' ', method) end)"
        f" - {_SELECTED}",
        high=0,
    ),
)


def drawn_pixels() -> list[Rule]:
    """Drawn images are there and not flat."""
    return suite(
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        share("rows", "made_without_pixels", "status = 'accepted' and pixels is null", 0),
        share(
            "rows",
            "flat_share",
            "pixels is not null and pixel_std < ${gates.min_pixel_std}",
            "${gates.max_failed_share}",
        ),
    )


def benchmark_images(methods: Sequence[str], optional: Sequence[str] = ()) -> list[Rule]:
    """Images of which one is selected for each row and method.

    Args:
        methods: of the benchmark model, none of which may be missing.
        optional: methods that are there only when set; they spend no denoiser evaluations.
    """
    own = " or ".join(f"method = '{method}'" for method in methods)
    count = f"count(distinct case when {own} then method end)"
    return suite(
        rows("rows"),
        unique("rows", "row_id", "method", "candidate"),
        not_null("rows", "row_id", "scenario", "prompt", "image_id", "drawn_prompt", "seed"),
        one_of("rows", "method", [*methods, *optional]),
        one_of("rows", "status", ["accepted", "failed"]),
        ONE_SCENARIO,
        measured("rows", "methods", count, len(methods), len(methods)),
        between("rows", "width", "${redenoising.width}", "${redenoising.width}"),
        between("rows", "height", "${redenoising.height}", "${redenoising.height}"),
        between("rows", "denoiser_evaluations", low=0),
        share("rows", "drawn_without_evaluations", f"denoiser_evaluations < 1 and ({own})", 0),
        drawn_pixels(),
        ONE_SELECTED,
    )
