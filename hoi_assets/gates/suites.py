"""The expectation suites, one per stage: data only.

A collapsed, empty, duplicated or wrongly shaped version blocks. Single faulty rows do not: they are
rejected or failed with a reason by their stage, and only their share is bounded here. Thresholds
that one may want to move are in the settings (`gates`).
"""

from hoi_assets.gates.rules import (
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
    "scorecards": suite(
        rows("scores"),
        not_null("scores", "suite", "method", "metric", "image_id"),
        share("scores", "missing_share", "value is null", "${gates.max_failed_share}"),
        rows("scorecard"),
        unique("scorecard", "suite", "method", "slice_kind", "slice", "metric"),
        between("scorecard", "n", low=0),
        share("scorecard", "mean_outside_interval", "mean < ci_low or mean > ci_high", 0),
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
