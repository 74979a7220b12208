"""The pipelines' jobs, in the order in which the warm loop runs them.

A job is one Dagster run: for one hand-pose category, for one scenario, or for all of them.
"""

import dagster as dg

verifier_training = dg.define_asset_job(
    "verifier_training",
    selection=["base_prompt_taxonomy", "verifier_training_pairs", "verifier"],
    description="Prompt-Propose-Verify, for all categories: the taxonomy and the verifier.",
)
ppv_category = dg.define_asset_job(
    "ppv_category",
    selection=[
        "round_plan",
        "detailed_prompts",
        "instance_images",
        "category_loras",
        "candidate_images",
        "verified_pairs",
    ],
    description="Prompt-Propose-Verify, one hand-pose category: prompts to verdicts.",
)
dataset_and_finetune = dg.define_asset_job(
    "dataset_and_finetune",
    selection=["hoi_dataset", "finetuned_model"],
    description="Prompt-Propose-Verify, for all categories: the dataset, and fine-tuned SDXL.",
)
evaluation_images = dg.define_asset_job(
    "evaluation_images",
    selection=["hoi_evaluation_images"],
    description="One hand-pose category: held-out prompts drawn by every model.",
)
detailscribe_scenario = dg.define_asset_job(
    "detailscribe_scenario",
    selection=[
        "interacting_prompts",
        "interaction_decompositions",
        "initial_images",
        "image_critiques",
        "refined_images",
        "baseline_images",
    ],
    description="DetailScribe, one scenario: prompts to refined images and baselines.",
)
evaluation = dg.define_asset_job(
    "evaluation",
    selection=[
        "human_ratings",
        "hoi_scorecards",
        "interacting_scorecards",
        "round_scorecards",
        "evaluation_report",
    ],
    description="Both pipelines: human ratings, scorecards and the report.",
)

PIPELINE_JOBS = (
    verifier_training,
    ppv_category,
    dataset_and_finetune,
    evaluation_images,
    detailscribe_scenario,
    evaluation,
)
