"""The expectation suites, one per stage: data only.

A collapsed, empty, duplicated or wrongly shaped version blocks. Single faulty rows do not: they are
rejected or failed with a reason by their stage, and only their share is bounded here. Thresholds
that one may want to move are in the settings (`gates`).
"""

from hoi_assets.publishing.expectations import (
    Rule,
    between,
    columns,
    duplicates,
    measured,
    not_null,
    one_of,
    rows,
    share,
    suite,
    unique,
)

FAILED = "status = 'failed'"
ONE_CATEGORY = measured("rows", "categories", "count(distinct category)", 1, 1)

ONE_SCENARIO = measured("rows", "scenarios", "count(distinct scenario)", 1, 1)
ACCEPTED = "sum(case when status = 'accepted' then 1 else 0 end)"
SELECTED = "count(distinct case when selected then concat(row_id, ' ', method) end)"
# One choice for each row and method that has a candidate to choose from.
ONE_SELECTED = suite(
    measured(
        "rows",
        "chosen_twice",
        f"sum(case when selected then 1 else 0 end) - {SELECTED}",
        high=0,
    ),
    measured(
        "rows",
        "nothing_chosen",
        "count(distinct case when status = 'accepted' then concat(row_id, ' ', method) end)"
        f" - {SELECTED}",
        high=0,
    ),
)


def _candidates(methods: list[str], at_will: list[str] | None = None) -> list[Rule]:
    """Pictures of which one is chosen for each row and method.

    Args:
        methods: of the benchmark model, none of which may be missing.
        at_will: those that are there only when set; they cost no denoiser evaluations.
    """
    own = " or ".join(f"method = '{method}'" for method in methods)
    count = f"count(distinct case when {own} then method end)"
    return suite(
        rows("rows"),
        unique("rows", "row_id", "method", "candidate"),
        not_null("rows", "row_id", "scenario", "prompt", "image_id", "drawn_prompt", "seed"),
        one_of("rows", "method", [*methods, *(at_will or [])]),
        one_of("rows", "status", ["accepted", "failed"]),
        ONE_SCENARIO,
        measured("rows", "methods", count, len(methods), len(methods)),
        between("rows", "width", "${refining.width}", "${refining.width}"),
        between("rows", "height", "${refining.height}", "${refining.height}"),
        between("rows", "denoiser_evaluations", low=0),
        share("rows", "drawn_without_evaluations", f"denoiser_evaluations < 1 and ({own})", 0),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        share("rows", "made_without_pixels", "status = 'accepted' and pixels is null", 0),
        share(
            "rows",
            "flat_share",
            "pixels is not null and pixel_std < ${gates.min_pixel_std}",
            "${gates.max_failed_share}",
        ),
        ONE_SELECTED,
    )


SUITES: dict[str, list[Rule]] = {
    "base_prompt_taxonomy": suite(
        rows("categories"),
        unique("categories", "category"),
        unique("categories", "identifier"),
        not_null("categories", "category", "name", "definition", "grasp_taxonomy", "grip_phrase"),
        between("categories", "hands", 1, 2),
        between("categories", "base_prompts", low=1),
        rows("prompts"),
        unique("prompts", "base_prompt_id"),
        not_null("prompts", "base_prompt_id", "text"),
        one_of("prompts", "kind", ["base", "evaluation", "general"]),
    ),
    "detailed_prompts": suite(
        unique("rows", "prompt_id"),
        not_null("rows", "prompt_id", "base_prompt_id", "category"),
        one_of("rows", "status", ["accepted", "rejected", "failed"]),
        ONE_CATEGORY,
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        measured(
            "rows",
            "accepted_prompts",
            "sum(case when status = 'accepted' then 1 else 0 end)",
            low="${gates.min_prompts}",
        ),
        measured(
            "rows",
            "accepted_prompts_repeated",
            "sum(case when status = 'accepted' then 1 else 0 end)"
            " - count(distinct case when status = 'accepted' then prompt end)",
            high=0,
        ),
        share("rows", "accepted_without_text", "status = 'accepted' and prompt is null", 0),
    ),
    "instance_images": suite(
        not_null("rows", "source", "category"),
        one_of("rows", "status", ["accepted", "rejected"]),
        ONE_CATEGORY,
        measured(
            "rows",
            "distinct_pictures",
            "count(distinct case when status = 'accepted' then pixels end)",
            low="${gates.min_instance_images}",
        ),
        share("rows", "accepted_without_pixels", "status = 'accepted' and pixels is null", 0),
        duplicates("rows", "pixels", "${gates.max_duplicate_share}"),
    ),
    "category_loras": suite(
        rows("log"),
        unique("log", "step"),
        between("log", "loss", 0, nullable=False),
        rows("summary", 1, 1),
        not_null("summary", "lora_digest", "base_digest", "identifier"),
        between("summary", "last_loss", 0, "${gates.max_loss}"),
        between("summary", "instance_images", low=1),
        rows("samples"),
        not_null("samples", "pixels"),
    ),
    "candidate_images": suite(
        rows("rows"),
        unique("rows", "image_id"),
        not_null("rows", "image_id", "prompt_id", "prompt", "seed", "base_digest", "lora_digest"),
        one_of("rows", "status", ["accepted", "failed"]),
        ONE_CATEGORY,
        between("rows", "width", "${sampling.width}", "${sampling.width}"),
        between("rows", "height", "${sampling.height}", "${sampling.height}"),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        share("rows", "made_without_pixels", "status = 'accepted' and pixels is null", 0),
        share(
            "rows",
            "flat_share",
            "pixels is not null and pixel_std < ${gates.min_pixel_std}",
            "${gates.max_failed_share}",
        ),
        duplicates("rows", "pixels", "${gates.max_duplicate_share}"),
    ),
    "verifier_training_pairs": suite(
        rows("rows"),
        unique("rows", "pair_id"),
        not_null("rows", "pixels", "prompt", "fidelity", "alignment"),
        one_of("rows", "split", ["train", "validation", "test"]),
        measured("rows", "splits", "count(distinct split)", 3, 3),
        # Both answers of both heads, or there is nothing to learn.
        measured(
            "rows", "whole_share", "avg(case when fidelity then 1.0 else 0.0 end)", 0.05, 0.95
        ),
        measured(
            "rows", "aligned_share", "avg(case when alignment then 1.0 else 0.0 end)", 0.05, 0.95
        ),
        # A scene in two splits would be counted twice on the left.
        measured(
            "rows",
            "scenes_in_two_splits",
            "count(distinct concat(scene_id, ' ', split)) - count(distinct scene_id)",
            high=0,
        ),
    ),
    "verifier": suite(
        rows("summary", 1, 1),
        between("summary", "auc_fidelity", "${gates.min_auc_fidelity}", 1),
        between("summary", "auc_alignment", "${gates.min_auc_alignment}", 1),
        between("summary", "threshold_fidelity", 0, 1),
        between("summary", "threshold_alignment", 0, 1),
        between("summary", "test_pairs", low=1),
        measured(
            "summary",
            "target_precision_met",
            "avg(case when target_met then 1.0 else 0.0 end)",
            low=1,
            blocking=False,
        ),
        rows("quality"),
        rows("reliability"),
    ),
    "verified_pairs": suite(
        rows("rows"),
        unique("rows", "image_id"),
        not_null("rows", "image_id", "prompt", "verifier_version"),
        one_of("rows", "status", ["accepted", "rejected", "failed"]),
        ONE_CATEGORY,
        between("rows", "p_fidelity", 0, 1, nullable=True),
        between("rows", "p_alignment", 0, 1, nullable=True),
        share(
            "rows",
            "judged_without_probability",
            "status <> 'failed' and (p_fidelity is null or p_alignment is null)",
            0,
        ),
        share("rows", "dropped_without_reason", "status <> 'accepted' and reason is null", 0),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        measured(
            "rows",
            "accepted_pairs",
            "sum(case when status = 'accepted' then 1 else 0 end)",
            low="${gates.min_accepted_per_category}",
        ),
        rows("summary", 1, 1),
    ),
    "hoi_dataset": suite(
        unique("rows", "image_id"),
        not_null("rows", "image_id", "prompt", "category", "pixels"),
        one_of("rows", "status", ["accepted", "rejected"]),
        measured(
            "rows",
            "accepted_pairs",
            "sum(case when status = 'accepted' then 1 else 0 end)",
            low="${gates.min_dataset_rows}",
        ),
        measured(
            "rows",
            "categories",
            "count(distinct case when status = 'accepted' then category end)",
            low="${dataset.min_categories}",
        ),
        share(
            "rows",
            "accepted_outside_splits",
            "status = 'accepted' and (split is null or split not in "
            "('train', 'validation', 'test'))",
            0,
        ),
        measured(
            "rows",
            "pictures_repeated",
            "sum(case when status = 'accepted' then 1 else 0 end)"
            " - count(distinct case when status = 'accepted' then pixels end)",
            high=0,
        ),
        measured(
            "rows",
            "base_prompts_in_two_splits",
            "count(distinct case when status = 'accepted' then concat(base_prompt_id, ' ', split)"
            " end) - count(distinct case when status = 'accepted' then base_prompt_id end)",
            high=0,
        ),
        rows("summary", 1, 1),
    ),
    "finetuned_model": suite(
        rows("log"),
        between("log", "loss", 0, nullable=True),
        rows("summary", 1, 1),
        not_null("summary", "lora_digest", "base_digest"),
        between("summary", "best_validation_loss", 0, "${gates.max_loss}"),
        between("summary", "train_rows", low="${finetuning.min_train_rows}"),
    ),
    "hoi_evaluation_images": suite(
        rows("rows"),
        unique("rows", "image_id"),
        not_null("rows", "image_id", "evaluation_prompt_id", "prompt", "seed"),
        one_of("rows", "suite", ["hoi", "general"]),
        one_of("rows", "method", ["base", "dreambooth", "finetuned"]),
        one_of("rows", "status", ["accepted", "failed"]),
        measured("rows", "methods", "count(distinct method)", 3, 3),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        duplicates("rows", "pixels", "${gates.max_duplicate_share}"),
    ),
    # Nobody may have voted yet: these hold of empty tables too.
    "human_ratings": suite(
        unique("rows", "study", "line", "method_a", "method_b"),
        not_null("rows", "study", "mode", "line"),
        one_of("rows", "status", ["accepted", "rejected"]),
        measured(
            "rows",
            "ratings_outside_1_to_5",
            "coalesce(sum(case when mode = 'rating' and score not between 1 and 5 then 1 else 0"
            " end), 0)",
            high=0,
        ),
        measured(
            "rows",
            "accepted_without_an_answer",
            "coalesce(sum(case when status = 'accepted' and score is null and choice is null"
            " then 1 else 0 end), 0)",
            high=0,
        ),
        measured(
            "rows",
            "accepted_of_unknown_images",
            "coalesce(sum(case when status = 'accepted' and (image_a is null or method_a is null"
            " or prompt_id is null or rater is null) then 1 else 0 end), 0)",
            high=0,
        ),
        measured(
            "rows",
            "rejected_without_reason",
            "coalesce(sum(case when status = 'rejected' and reason is null then 1 else 0 end), 0)",
            high=0,
        ),
        unique("studies", "study"),
        measured(
            "studies",
            "unreadable_studies",
            "coalesce(sum(case when status = 'failed' then 1 else 0 end), 0)",
            high=0,
            blocking=False,
        ),
        columns("equal", "study", "prompt_id", "method_a", "method_b"),
        between("ratings", "mean", 0, 5, nullable=True),
        between("ratings", "n", low=1),
        between("wins", "win_rate", 0, 1, nullable=True),
        between("wins", "n", low=1),
        between("head_to_head", "win_rate_a", 0, 1),
        between("agreement", "value", high=1, nullable=True),
    ),
    "interacting_prompts": suite(
        rows("rows"),
        unique("rows", "row_id"),
        not_null("rows", "row_id", "scenario", "source"),
        one_of("rows", "status", ["accepted", "failed"]),
        ONE_SCENARIO,
        measured("rows", "usable_prompts", ACCEPTED, low=1),
        share("rows", "usable_without_prompt", "status = 'accepted' and trim(prompt) = ''", 0),
        share("rows", "failed_without_reason", f"{FAILED} and reason is null", 0),
    ),
    "interaction_decompositions": suite(
        rows("rows"),
        unique("rows", "row_id"),
        not_null("rows", "row_id", "prompt", "model"),
        one_of("rows", "status", ["accepted", "failed"]),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        share("rows", "accepted_without_components", "status = 'accepted' and components < 1", 0),
        rows("components"),
        unique("components", "row_id", "component"),
        not_null("components", "subject", "relation", "question"),
    ),
    "initial_images": suite(
        _candidates(["plain"]), duplicates("rows", "pixels", "${gates.max_duplicate_share}")
    ),
    "image_critiques": suite(
        rows("rows"),
        unique("rows", "row_id"),
        not_null("rows", "row_id", "prompt"),
        one_of("rows", "status", ["accepted", "failed"]),
        share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
        share("rows", "failed_without_reason", f"{FAILED} and reason is null", 0),
        # The method's own promise: the sentence first, word for word, then the corrections.
        share("rows", "not_verbatim", "not starts_with(corrected_prompt, prompt)", 0),
        between("rows", "words", high="${critic.max_words}", nullable=True),
        unique("findings", "row_id", "rank"),
        between("findings", "confidence", 0, 1),
    ),
    "refined_images": _candidates(["detailscribe", "craft"]),
    "baseline_images": _candidates(
        ["multi_seed", "multi_seed_clip", "rewrite", "refine"], at_will=["endpoint"]
    ),
    "scorecards": suite(
        rows("scores"),
        not_null("scores", "suite", "method", "metric", "image_id"),
        # A judge's missing replies are failed rows, asked again by the next run.
        share(
            "scores",
            "missing_share",
            "value is null and metric not in ('judge_rating', 'judge_yes')",
            "${gates.max_failed_share}",
        ),
        rows("scorecard"),
        unique("scorecard", "suite", "method", "slice_kind", "slice", "metric"),
        between("scorecard", "n", low=0),
        share(
            "scorecard", "mean_outside_interval", "mean < ci_low - 1e-9 or mean > ci_high + 1e-9", 0
        ),
        columns("comparisons", "method_a", "method_b", "difference", "ci_low", "ci_high", "p"),
        between("comparisons", "p", 0, 1, nullable=True),
    ),
    "evaluation_report": suite(
        rows("summary", 1, 1),
        between("summary", "bytes", low=1000),
        between("summary", "pictures", low=1),
        # Self-contained: opens offline, on any machine.
        between("summary", "external_references", 0, 0),
    ),
}
