"""From verdicts to a dataset that other tools open, and SDXL fine-tuned on it."""

import polars as pl

from hoi_assets.publishing.stage import Image, Markdown, Result, Work, stage
from hoi_assets.settings import ModelRef
from hoi_assets.store.versions import Staging

GROUP = "prompt_propose_verify"


@stage(
    "hoi_dataset",
    deps=["base_prompt_taxonomy", "detailed_prompts", "verified_pairs"],
    code_version="1",
    recipe=[
        "hoi_assets/ppv/dataset_files.py",
        "hoi_assets/ppv/image_duplicates.py",
        "hoi_assets/ppv/packaging.py",
        "hoi_assets/ppv/splits.py",
        "hoi_assets/ppv/templates/dataset_card.md.j2",
    ],
    settings=["dataset"],
    models=["base"],
    group=GROUP,
    description="The accepted pairs of all categories whose gates hold, near-duplicates removed, "
    "split by base prompt, with a dataset card; opens with `datasets.load_dataset(folder)`.",
)
def hoi_dataset(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.packaging import package_dataset

    rows, summary = package_dataset(
        work.store,
        work.settings.dataset,
        work.taxonomy,
        verdicts=work.parents("verified_pairs"),
        prompts=work.parents("detailed_prompts"),
        missing=work.missing("verified_pairs"),
        folder=out.path / "dataset",
        sources={"base model": _named(work.settings.models.base)},
    )
    out.write_table("rows", rows)
    out.write_table("summary", summary)
    work.record("image_id", rows)
    kept = rows.filter(pl.col("status") == "accepted")
    shown = kept.sample(n=min(36, kept.height), seed=0)
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]], shown["prompt"].to_list()
    )
    return Result(
        metadata={
            **summary.row(0, named=True),
            "open": Markdown("```python\ndatasets.load_dataset('<path>/dataset')\n```"),
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


def _named(model: ModelRef) -> str:
    return f"{model.source}, revision {model.revision}" if model.revision else model.source


@stage(
    "finetuned_model",
    deps=["hoi_dataset"],
    code_version="1",
    recipe=[
        "hoi_assets/engines/sdxl/lora.py",
        "hoi_assets/engines/sdxl/denoising.py",
        "hoi_assets/ppv/finetuning.py",
    ],
    settings=["finetuning", "sampling"],
    models=["base"],
    group=GROUP,
    description="SDXL fine-tuned on `hoi_dataset` (LoRA), stopped early on validation loss.",
)
def finetuned_model(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import loss_curve
    from hoi_assets.ppv.finetuning import finetune

    tuned = finetune(work.store, work.settings, work.parent("hoi_dataset").table("rows"), work.log)
    out.add_folder("lora", tuned.folder)
    out.write_table("log", tuned.log)
    out.write_table("summary", tuned.summary)
    return Result(
        metadata={
            **tuned.summary.row(0, named=True),
            "loss_curve": Image(loss_curve(tuned.log), "image/png"),
            "use": Markdown("```python\npipe.load_lora_weights('<path>/lora')\n```"),
        }
    )
