"""Expectations that several suites share.

A collapsed, empty, duplicated or wrongly shaped version blocks. Single faulty rows do not: their
stage rejects or fails them with a reason, and a suite bounds their share only. Thresholds are
settings (`gates`).
"""

from collections.abc import Sequence

from hoi_assets.publishing.expectations import (
    PARTITION,
    Expectation,
    Suite,
    between,
    duplicates,
    in_set,
    measure,
    not_null,
    row_count,
    share,
    suite,
    unexpected_rows,
    unique,
)

FAILED_SHARE = share("failed_share", "status = 'failed'", "${gates.max_failed_share}")
FLAT_SHARE = share(
    "flat_share",
    # NaN is larger than any number.
    "pixels is not null and (pixel_std is null or pixel_std = cast('nan' as double)"
    " or pixel_std < ${gates.min_pixel_std})",
    "${gates.max_failed_share}",
)
# A model's limit is part of a published metric, so a cut text is a caveat of its scores: a warning.
CUT_TEXTS = share("cut_text_share", "prompt_cut", "${gates.warn_cut_share}", blocking=False)
# An image does not show what its caption's end names. Single ones are a warning too; where most are
# such, prompts and model do not fit each other.
CUT_PROMPTS = (
    CUT_TEXTS,
    share("mostly_cut_share", "prompt_cut", "${gates.max_cut_share}"),
)
REPEATED_PICTURES = duplicates("pixels", "${gates.max_duplicate_share}")
ACCEPTED_WITHOUT_PIXELS = unexpected_rows(
    "accepted_without_pixels", "status = 'accepted' and pixels is null"
)
FAILED_WITHOUT_REASON = unexpected_rows(
    "failed_without_reason", "status = 'failed' and reason is null"
)
ONE_CATEGORY = (
    measure("categories", "count(distinct category)", 1, 1),
    unexpected_rows("of_another_partition", f"category <> '{PARTITION}'"),
)
ONE_SCENARIO = (
    measure("scenarios", "count(distinct scenario)", 1, 1),
    unexpected_rows("of_another_partition", f"scenario <> '{PARTITION}'"),
)
# Of the table `contents`. Of half precision, 65504 is the largest number.
STORED_PICTURES = unexpected_rows("not_stored", "kind = 'picture' and problem is not null")
READABLE_FILES = unexpected_rows("not_readable", "kind <> 'picture' and problem is not null")
SOUND_WEIGHTS = (
    READABLE_FILES,
    measure("weights_files", "count(case when kind = 'weights' then 1 end)", 1),
    unexpected_rows("not_finite", "not_finite > 0"),
    unexpected_rows("largest_weight", "largest > 10000"),
)


def no_blank(column: str, where: str = "true") -> Expectation:
    """No row that meets the condition has a text of blanks alone."""
    return unexpected_rows(f"blank_{column}", f"{where} and trim({column}) = ''")


ACCEPTED = "sum(case when status = 'accepted' then 1 else 0 end)"

# One choice for each row and method that has a candidate to choose from.
_SELECTED = "count(distinct case when selected then concat(row_id, ' ', method) end)"
ONE_SELECTED = (
    measure(
        "chosen_twice", f"sum(case when selected then 1 else 0 end) - {_SELECTED}", max_value=0
    ),
    measure(
        "nothing_chosen",
        "count(distinct case when status = 'accepted' then concat(row_id, ' ', method) end)"
        f" - {_SELECTED}",
        max_value=0,
    ),
)


def benchmark_images(methods: Sequence[str], optional: Sequence[str] = ()) -> Suite:
    """Images of which one is selected for each row and method.

    Args:
        methods: of the benchmark model, none of which may be missing.
        optional: methods that are there only when set; they spend no denoiser evaluations.
    """
    own = " or ".join(f"method = '{method}'" for method in methods)
    count = f"count(distinct case when {own} then method end)"
    return suite(
        rows=[
            row_count(1),
            unique("row_id", "method", "candidate"),
            not_null("row_id", "scenario", "prompt", "image_id", "drawn_prompt", "seed"),
            in_set("method", [*methods, *optional]),
            in_set("status", ["accepted", "failed"]),
            ONE_SCENARIO,
            measure("methods", count, len(methods), len(methods)),
            between("width", "${redenoising.width}", "${redenoising.width}"),
            between("height", "${redenoising.height}", "${redenoising.height}"),
            between("denoiser_evaluations", 0),
            unexpected_rows("drawn_without_evaluations", f"denoiser_evaluations < 1 and ({own})"),
            FAILED_SHARE,
            ACCEPTED_WITHOUT_PIXELS,
            FLAT_SHARE,
            CUT_PROMPTS,
            ONE_SELECTED,
        ],
        contents=[STORED_PICTURES],
    )
