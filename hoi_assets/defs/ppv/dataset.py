"""From verdicts to a dataset that other tools open, and SDXL fine-tuned on it."""

import polars as pl

from hoi_assets.defs.automation import follow_changed_parents, follow_in_one_run
from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.sheets import image_sheet, validation_sheet
from hoi_assets.defs.suites import ACCEPTED, READABLE_FILES, SOUND_WEIGHTS, STORED_PICTURES
from hoi_assets.ppv.cut_captions import CUT_CAPTIONS
from hoi_assets.ppv.finetuning import FINETUNING_LOG, FINETUNING_SUMMARY
from hoi_assets.ppv.packaging import DATASET_ROWS, DATASET_SUMMARY
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    in_set,
    measure,
    not_null,
    row_count,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Image, Markdown
from hoi_assets.settings import ModelRef
from hoi_assets.store.versions import Staging

SHOWN_PAIRS = 36

DATASET_SUITE = suite(
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
    contents=[
        STORED_PICTURES,
        READABLE_FILES,
        measure(
            "dataset_files",
            "count(case when kind = 'table' and starts_with(name, 'dataset/') then 1 end)",
            1,
        ),
    ],
)


@published_asset(
    deps=["base_prompt_taxonomy", "detailed_prompts", "verified_pairs"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"huggingface"},
    automation_condition=follow_changed_parents,
    code_version="3",
    suite=DATASET_SUITE,
    tables=[DATASET_ROWS, DATASET_SUMMARY],
    settings=["dataset"],
    models=["base"],
)
def hoi_dataset(context: StageContext, staging: Staging) -> Result:
    """The accepted pairs of all categories whose gates pass, near-duplicates removed, split by base
    prompt, with a dataset card; opens with `datasets.load_dataset(folder)`."""
    from hoi_assets.engines.vilt.verifier_statement import statements_by_version
    from hoi_assets.ppv.packaging import package_dataset

    models = context.settings.models
    parents = {name: context.partitions(name) for name in ("verified_pairs", "detailed_prompts")}
    tables = {
        name: {key: one.table("rows") for key, one in found.items()}
        for name, found in parents.items()
    }
    verdicts = tables["verified_pairs"]
    table, summary = package_dataset(
        context.store,
        context.settings.dataset,
        context.taxonomy,
        verdicts=verdicts,
        prompts=tables["detailed_prompts"],
        versions={one.name: one.version for found in parents.values() for one in found.values()},
        missing=context.missing("verified_pairs"),
        folder=staging.path / "dataset",
        # What drew the pictures, whose terms are theirs.
        sources={"base model": _named(models.proposer or models.base)},
    )
    staging.write_table("rows", table)
    staging.write_table("summary", summary)
    context.record("image_id", table)
    accepted = table.filter(pl.col("status") == "accepted")
    shown = accepted.sample(n=min(SHOWN_PAIRS, accepted.height), seed=0)
    sheet = image_sheet(context.store, shown["pixels"], shown["prompt"].to_list())
    judged = pl.concat(one.select("status", "verifier_version") for one in verdicts.values())
    versions = judged.filter(pl.col("status") == "accepted")["verifier_version"].unique()
    statements = statements_by_version(context.store, versions)
    return Result(
        metadata={
            "what_the_verifier_can_tell": Markdown(
                "\n\n".join(f"`verifier` {name}: {said}" for name, said in statements.items())
            ),
            **summary.row(0, named=True),
            "open": Markdown("```python\ndatasets.load_dataset('<path>/dataset')\n```"),
            "contact_sheet": sheet,
        }
    )


def _named(model: ModelRef) -> str:
    return f"{model.source}, revision {model.revision}" if model.revision else model.source


FINETUNED_MODEL_SUITE = suite(
    log=[row_count(1), between("loss", 0, nullable=True)],
    summary=[
        row_count(1, 1),
        not_null("lora_digest", "base_digest"),
        between("best_validation_loss", 0, "${gates.max_loss}"),
        between("train_rows", "${finetuning.min_train_rows}"),
    ],
    contents=[SOUND_WEIGHTS],
)


@published_asset(
    deps=["hoi_dataset"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    automation_condition=follow_in_one_run,
    code_version="1",
    suite=FINETUNED_MODEL_SUITE,
    tables=[FINETUNING_SUMMARY, FINETUNING_LOG, CUT_CAPTIONS],
    settings=["finetuning", "sampling"],
    models=["base"],
)
def finetuned_model(context: StageContext, staging: Staging) -> Result:
    """SDXL fine-tuned on `hoi_dataset` (LoRA), stopped early on validation loss."""
    from hoi_assets.charts import loss_curve
    from hoi_assets.ppv.finetuning import finetune

    dataset = context.parent("hoi_dataset").table("rows")
    tuned = finetune(context.store, context.settings, dataset, context.log)
    staging.add_folder("lora", tuned.folder)
    staging.write_table("log", tuned.log)
    staging.write_table("summary", tuned.summary)
    if not tuned.cut_captions.is_empty():
        staging.write_table("cut_captions", tuned.cut_captions)
    return Result(
        metadata={
            **tuned.summary.row(0, named=True),
            "images_with_cut_captions": int(tuned.cut_captions["images"].sum()),
            "loss_curve": Image(loss_curve(tuned.log), "image/png"),
            **validation_sheet(
                context.store,
                tuned.validation_images,
                context.settings.finetuning.num_validation_images,
            ),
            "use": Markdown("```python\npipe.load_lora_weights('<path>/lora')\n```"),
        }
    )
