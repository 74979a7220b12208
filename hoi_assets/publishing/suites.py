"""The expectation suites, one per asset, by table: data only.

A collapsed, empty, duplicated or wrongly shaped version blocks. Single faulty rows do not: they are
rejected or failed with a reason by their stage, and only their share is bounded here. Thresholds
that one may want to move are in the settings (`gates`).
"""

from hoi_assets.publishing.expectations import (
    Suite,
    between,
    column_exists,
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
    "pixels is not null and pixel_std < ${gates.min_pixel_std}",
    "${gates.max_failed_share}",
)
REPEATED_PICTURES = duplicates("pixels", "${gates.max_duplicate_share}")
ACCEPTED_WITHOUT_PIXELS = unexpected_rows(
    "accepted_without_pixels", "status = 'accepted' and pixels is null"
)
FAILED_WITHOUT_REASON = unexpected_rows(
    "failed_without_reason", "status = 'failed' and reason is null"
)
ONE_CATEGORY = measure("categories", "count(distinct category)", 1, 1)
ONE_SCENARIO = measure("scenarios", "count(distinct scenario)", 1, 1)
ACCEPTED = "sum(case when status = 'accepted' then 1 else 0 end)"

# One choice for each row and method that has a candidate to choose from.
SELECTED = "count(distinct case when selected then concat(row_id, ' ', method) end)"
ONE_SELECTED = (
    measure("chosen_twice", f"sum(case when selected then 1 else 0 end) - {SELECTED}", max_value=0),
    measure(
        "nothing_chosen",
        "count(distinct case when status = 'accepted' then concat(row_id, ' ', method) end)"
        f" - {SELECTED}",
        max_value=0,
    ),
)


def _candidates(methods: list[str], optional: list[str] | None = None) -> Suite:
    """Images of which one is chosen for each row and method.

    Args:
        methods: of the benchmark model, none of which may be missing.
        optional: those that are there only when set; they spend none of our denoiser evaluations.
    """
    own = " or ".join(f"method = '{method}'" for method in methods)
    count = f"count(distinct case when {own} then method end)"
    return suite(
        rows=[
            row_count(1),
            unique("row_id", "method", "candidate"),
            not_null("row_id", "scenario", "prompt", "image_id", "drawn_prompt", "seed"),
            in_set("method", [*methods, *(optional or [])]),
            in_set("status", ["accepted", "failed"]),
            ONE_SCENARIO,
            measure("methods", count, len(methods), len(methods)),
            between("width", "${refining.width}", "${refining.width}"),
            between("height", "${refining.height}", "${refining.height}"),
            between("passes", 0),
            unexpected_rows("drawn_without_passes", f"passes < 1 and ({own})"),
            FAILED_SHARE,
            ACCEPTED_WITHOUT_PIXELS,
            FLAT_SHARE,
            ONE_SELECTED,
        ]
    )


SUITES: dict[str, Suite] = {
    "base_prompt_taxonomy": suite(
        categories=[
            row_count(1),
            unique("category"),
            unique("identifier"),
            not_null("category", "name", "definition", "grasp_taxonomy", "grip_phrase"),
            between("hands", 1, 2),
            between("base_prompts", 1),
        ],
        prompts=[
            row_count(1),
            unique("base_prompt_id"),
            not_null("base_prompt_id", "text"),
            in_set("kind", ["base", "evaluation", "general"]),
        ],
    ),
    "detailed_prompts": suite(
        rows=[
            unique("prompt_id"),
            not_null("prompt_id", "base_prompt_id", "category"),
            in_set("status", ["accepted", "rejected", "failed"]),
            ONE_CATEGORY,
            FAILED_SHARE,
            measure("accepted_prompts", ACCEPTED, "${gates.min_prompts}"),
            measure(
                "accepted_prompts_repeated",
                f"{ACCEPTED} - count(distinct case when status = 'accepted' then prompt end)",
                max_value=0,
            ),
            unexpected_rows("accepted_without_text", "status = 'accepted' and prompt is null"),
        ],
    ),
    "instance_images": suite(
        rows=[
            not_null("source", "category"),
            in_set("status", ["accepted", "rejected"]),
            ONE_CATEGORY,
            measure(
                "distinct_pictures",
                "count(distinct case when status = 'accepted' then pixels end)",
                "${gates.min_instance_images}",
            ),
            ACCEPTED_WITHOUT_PIXELS,
            REPEATED_PICTURES,
        ],
    ),
    "category_loras": suite(
        log=[row_count(1), unique("step"), between("loss", 0)],
        summary=[
            row_count(1, 1),
            not_null("lora_digest", "base_digest", "identifier"),
            between("last_loss", 0, "${gates.max_loss}"),
            between("instance_images", 1),
        ],
        samples=[row_count(1), not_null("pixels")],
    ),
    "candidate_images": suite(
        rows=[
            row_count(1),
            unique("image_id"),
            not_null("image_id", "prompt_id", "prompt", "seed", "base_digest", "lora_digest"),
            in_set("status", ["accepted", "failed"]),
            ONE_CATEGORY,
            between("width", "${sampling.width}", "${sampling.width}"),
            between("height", "${sampling.height}", "${sampling.height}"),
            FAILED_SHARE,
            ACCEPTED_WITHOUT_PIXELS,
            FLAT_SHARE,
            REPEATED_PICTURES,
        ],
    ),
    "verifier_training_pairs": suite(
        rows=[
            row_count(1),
            unique("pair_id"),
            not_null("pixels", "prompt", "fidelity", "alignment"),
            in_set("split", ["train", "validation", "test"]),
            measure("splits", "count(distinct split)", 3, 3),
            # Both answers of both heads, or there is nothing to learn.
            measure("whole_share", "avg(case when fidelity then 1.0 else 0.0 end)", 0.05, 0.95),
            measure("aligned_share", "avg(case when alignment then 1.0 else 0.0 end)", 0.05, 0.95),
            # A scene in two splits is counted twice on the left.
            measure(
                "scenes_in_two_splits",
                "count(distinct concat(scene_id, ' ', split)) - count(distinct scene_id)",
                max_value=0,
            ),
        ],
    ),
    "verifier": suite(
        summary=[
            row_count(1, 1),
            between("auc_fidelity", "${gates.min_auc_fidelity}", 1),
            between("auc_alignment", "${gates.min_auc_alignment}", 1),
            between("threshold_fidelity", 0, 1),
            between("threshold_alignment", 0, 1),
            between("test_pairs", 1),
            measure(
                "target_precision_met",
                "avg(case when target_met then 1.0 else 0.0 end)",
                1,
                blocking=False,
            ),
        ],
        quality=[row_count(1)],
        reliability=[row_count(1)],
    ),
    "verified_pairs": suite(
        rows=[
            row_count(1),
            unique("image_id"),
            not_null("image_id", "prompt", "verifier_version"),
            in_set("status", ["accepted", "rejected", "failed"]),
            ONE_CATEGORY,
            between("p_fidelity", 0, 1, nullable=True),
            between("p_alignment", 0, 1, nullable=True),
            unexpected_rows(
                "judged_without_probability",
                "status <> 'failed' and (p_fidelity is null or p_alignment is null)",
            ),
            unexpected_rows("dropped_without_reason", "status <> 'accepted' and reason is null"),
            FAILED_SHARE,
            measure("accepted_pairs", ACCEPTED, "${gates.min_accepted_per_category}"),
        ],
        summary=[row_count(1, 1)],
    ),
    "hoi_dataset": suite(
        rows=[
            unique("image_id"),
            not_null("image_id", "prompt", "category", "pixels"),
            in_set("status", ["accepted", "rejected"]),
            measure("accepted_pairs", ACCEPTED, "${gates.min_dataset_rows}"),
            measure(
                "categories",
                "count(distinct case when status = 'accepted' then category end)",
                "${dataset.min_categories}",
            ),
            unexpected_rows(
                "accepted_outside_splits",
                "status = 'accepted' and (split is null or split not in "
                "('train', 'validation', 'test'))",
            ),
            measure(
                "pictures_repeated",
                f"{ACCEPTED} - count(distinct case when status = 'accepted' then pixels end)",
                max_value=0,
            ),
            measure(
                "base_prompts_in_two_splits",
                "count(distinct case when status = 'accepted' then concat(base_prompt_id, ' ',"
                " split) end)"
                " - count(distinct case when status = 'accepted' then base_prompt_id end)",
                max_value=0,
            ),
        ],
        summary=[row_count(1, 1)],
    ),
    "finetuned_model": suite(
        log=[row_count(1), between("loss", 0, nullable=True)],
        summary=[
            row_count(1, 1),
            not_null("lora_digest", "base_digest"),
            between("best_validation_loss", 0, "${gates.max_loss}"),
            between("train_rows", "${finetuning.min_train_rows}"),
        ],
    ),
    "hoi_evaluation_images": suite(
        rows=[
            row_count(1),
            unique("image_id"),
            not_null("image_id", "evaluation_prompt_id", "prompt", "seed"),
            in_set("suite", ["hoi", "general"]),
            in_set("method", ["base", "dreambooth", "finetuned"]),
            in_set("status", ["accepted", "failed"]),
            measure("methods", "count(distinct method)", 3, 3),
            FAILED_SHARE,
            REPEATED_PICTURES,
        ],
    ),
    # Nobody may have voted yet: these hold of empty tables too.
    "human_ratings": suite(
        rows=[
            unique("study", "line", "method_a", "method_b"),
            not_null("study", "mode", "line"),
            in_set("status", ["accepted", "rejected"]),
            unexpected_rows(
                "ratings_outside_1_to_5", "mode = 'rating' and score not between 1 and 5"
            ),
            unexpected_rows(
                "accepted_without_an_answer",
                "status = 'accepted' and score is null and choice is null",
            ),
            unexpected_rows(
                "accepted_of_unknown_images",
                "status = 'accepted' and (image_a is null or method_a is null"
                " or prompt_id is null or rater is null)",
            ),
            unexpected_rows("rejected_without_reason", "status = 'rejected' and reason is null"),
        ],
        studies=[
            unique("study"),
            unexpected_rows("unreadable_studies", "status = 'failed'", blocking=False),
        ],
        equal=[column_exists("study", "prompt_id", "method_a", "method_b")],
        ratings=[between("mean", 0, 5, nullable=True), between("n", 1)],
        wins=[between("win_rate", 0, 1, nullable=True), between("n", 1)],
        head_to_head=[between("win_rate_a", 0, 1)],
        agreement=[between("value", max_value=1, nullable=True)],
    ),
    "interacting_prompts": suite(
        rows=[
            row_count(1),
            unique("row_id"),
            not_null("row_id", "scenario", "source"),
            in_set("status", ["accepted", "failed"]),
            ONE_SCENARIO,
            measure("usable_prompts", ACCEPTED, 1),
            unexpected_rows("usable_without_prompt", "status = 'accepted' and trim(prompt) = ''"),
            FAILED_WITHOUT_REASON,
        ],
    ),
    "interaction_decompositions": suite(
        rows=[
            row_count(1),
            unique("row_id"),
            not_null("row_id", "prompt", "model"),
            in_set("status", ["accepted", "failed"]),
            FAILED_SHARE,
            unexpected_rows(
                "accepted_without_components", "status = 'accepted' and components < 1"
            ),
        ],
        components=[
            row_count(1),
            unique("row_id", "component"),
            not_null("subject", "relation", "question"),
        ],
    ),
    "initial_images": (*_candidates(["plain"]), *suite(rows=[REPEATED_PICTURES])),
    "image_critiques": suite(
        rows=[
            row_count(1),
            unique("row_id"),
            not_null("row_id", "prompt"),
            in_set("status", ["accepted", "failed"]),
            FAILED_SHARE,
            FAILED_WITHOUT_REASON,
            # The method's own promise: the sentence first, word for word, then the corrections.
            unexpected_rows("not_verbatim", "not starts_with(corrected_prompt, prompt)"),
            between("words", max_value="${critic.max_words}", nullable=True),
        ],
        findings=[unique("row_id", "rank"), between("confidence", 0, 1)],
    ),
    "refined_images": _candidates(["detailscribe", "craft"]),
    "baseline_images": _candidates(
        ["multi_seed", "multi_seed_clip", "rewrite", "refine"], optional=["endpoint"]
    ),
    "scorecards": suite(
        scores=[
            row_count(1),
            not_null("suite", "method", "metric", "image_id"),
            # A judge's missing replies are failed rows, asked again by the next run.
            share(
                "missing_share",
                "value is null and metric not in ('judge_rating', 'judge_yes')",
                "${gates.max_failed_share}",
            ),
        ],
        scorecard=[
            row_count(1),
            unique("suite", "method", "slice_kind", "slice", "metric"),
            between("n", 0),
            unexpected_rows(
                "mean_outside_interval", "mean < ci_low - 1e-9 or mean > ci_high + 1e-9"
            ),
        ],
        comparisons=[
            column_exists("method_a", "method_b", "difference", "ci_low", "ci_high", "p"),
            between("p", 0, 1, nullable=True),
        ],
    ),
    "evaluation_report": suite(
        summary=[
            row_count(1, 1),
            between("bytes", 1000),
            between("pictures", 1),
            # Self-contained: opens offline, on any machine.
            between("external_references", 0, 0),
        ],
    ),
}
