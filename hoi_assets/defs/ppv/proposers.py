"""From instance images to candidates: one DreamBooth LoRA per hand-pose category proposes."""

import polars as pl

from hoi_assets.publishing.stage import Image, Markdown, Result, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "prompt_propose_verify"


@stage(
    "instance_images",
    partitions="hand_pose",
    deps=["base_prompt_taxonomy"],
    code_version="2",
    recipe=["hoi_assets/ppv/instance_images.py"],
    settings=["instance_images"],
    inputs=lambda work: {"source": _source_digest(work)},
    group=GROUP,
    description="The DreamBooth reference pictures of the category and their captions: renders of "
    "the tiny world, or the user's own folder. Unreadable files are rejected with a reason.",
)
def instance_images(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.instance_images import read_instance_images

    table = read_instance_images(work.category, work.settings.instance_images, work.store.images)
    out.write_table("rows", table)
    work.record("source", table)
    kept = table.filter(pl.col("status") == "accepted")
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in kept["pixels"]], kept["caption"].to_list()
    )
    return Result(
        metadata={
            "accepted": kept.height,
            "rejected": table.height - kept.height,
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


def _source_digest(work: Work) -> str:
    from hoi_assets.ppv.instance_images import instance_images_digest

    return instance_images_digest(work.category, work.settings.instance_images)


@stage(
    "category_loras",
    partitions="hand_pose",
    deps=["instance_images"],
    code_version="1",
    recipe=[
        "hoi_assets/engines/sdxl/lora.py",
        "hoi_assets/engines/sdxl/denoising.py",
        "hoi_assets/ppv/proposer.py",
    ],
    settings=["lora", "sampling"],
    models=["base"],
    group=GROUP,
    description="A DreamBooth LoRA of SDXL's UNet for the category, with prior preservation, in "
    "diffusers' layout: `pipe.load_lora_weights(folder)` opens it.",
)
def category_loras(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, loss_curve, to_webp
    from hoi_assets.ppv.proposer import train_proposer

    proposer = train_proposer(
        work.store,
        work.settings,
        work.taxonomy.categories[work.category],
        work.parent("instance_images").table("rows"),
        work.log,
    )
    out.add_folder("lora", proposer.folder)
    out.write_table("log", proposer.log)
    out.write_table("summary", proposer.summary)
    out.write_table("samples", proposer.samples)
    samples = proposer.samples.sort("seed", "method")
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in samples["pixels"]],
        samples["method"].to_list(),
        columns=4,
    )
    return Result(
        metadata={
            **proposer.summary.row(0, named=True),
            "loss_curve": Image(loss_curve(proposer.log), "image/png"),
            "samples_before_and_after": Image(to_webp(sheet), "image/webp"),
            "use": Markdown(
                f"```python\npipe.load_lora_weights('<path>/lora')\n```\n"
                f"Prompts begin with `{proposer.identifier}`."
            ),
        }
    )


@stage(
    "candidate_images",
    partitions="hand_pose",
    deps=["detailed_prompts", "category_loras", "verifier"],
    code_version="1",
    recipe=["hoi_assets/engines/sdxl/sampling.py", "hoi_assets/ppv/candidates.py"],
    settings=["sampling", "candidates"],
    models=["base"],
    group=GROUP,
    description="Images proposed by the category's LoRA, one noise seed each; a row holds what it "
    "takes to draw its image again alone (`hoi replay IMAGE_ID`).",
)
def candidate_images(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.candidates import propose_candidates

    table = propose_candidates(
        work.store,
        work.settings,
        work.taxonomy.categories[work.category],
        prompts=work.parent("detailed_prompts").table("rows"),
        lora=work.parent("category_loras"),
        verifier=work.parent("verifier"),
        log=work.log,
    )
    out.write_table("rows", table)
    work.record("image_id", table)
    made = table.filter(pl.col("status") == "accepted")
    shown = made.head(36)
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]], shown["prompt"].to_list()
    )
    return Result(
        metadata={
            "candidates": made.height,
            "failed": table.height - made.height,
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )
