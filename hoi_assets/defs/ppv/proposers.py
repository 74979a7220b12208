"""From instance images to candidates: one DreamBooth LoRA per hand-pose category proposes."""

import polars as pl
from pydantic import Field

from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.defs.sheets import image_sheet, validation_sheet
from hoi_assets.defs.suites import (
    ACCEPTED_WITHOUT_PIXELS,
    CUT_PROMPTS,
    FAILED_SHARE,
    FLAT_SHARE,
    ONE_CATEGORY,
    REPEATED_PICTURES,
    SOUND_WEIGHTS,
    STORED_PICTURES,
    no_blank,
)
from hoi_assets.ppv.candidates import CANDIDATE_ROWS
from hoi_assets.ppv.cut_captions import CUT_CAPTIONS
from hoi_assets.ppv.instance_images import INSTANCE_IMAGE_ROWS, INSTANCE_ROUNDS
from hoi_assets.ppv.proposer import LORA_LOG, LORA_SAMPLES, LORA_SUMMARY
from hoi_assets.ppv.round_loras import ROUND_LORAS
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.config import PublishConfig
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
from hoi_assets.publishing.metadata import Image, Markdown, Table
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Staging

SHOWN_IMAGES = 36
LOGGED_REJECTIONS = 20
# Steps may be bad; one that is infinite ends a training.
LARGEST_LOSS = 1e6

INSTANCE_IMAGES_SUITE = suite(
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
    contents=[STORED_PICTURES],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["base_prompt_taxonomy"],
    optional_deps=["round_plan"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"polars"},
    code_version="2",
    suite=INSTANCE_IMAGES_SUITE,
    tables=[INSTANCE_IMAGE_ROWS, INSTANCE_ROUNDS],
    settings=["instance_images"],
    external_inputs=lambda context: {"source": _source_digest(context)},
)
def instance_images(context: StageContext, staging: Staging) -> Result:
    """The DreamBooth reference images of the category and their captions: renders of the tiny
    world, or the user's own folder, and more where a round asks for them. What is no usable picture
    is rejected with a reason."""
    from hoi_assets.ppv.instance_images import read_instance_images, rounds_of_images
    from hoi_assets.ppv.round_plan import more_images, read_plan

    images, options = context.store.images, context.settings.instance_images
    more = more_images(read_plan(context.version("round_plan")))
    table = read_instance_images(context.partition_key, options, images, more)
    staging.write_table("rows", table)
    if more:
        staging.write_table("rounds", rounds_of_images(table, options, more))
    context.record("source", table)
    accepted = table.filter(pl.col("status") == "accepted")
    for reason in table["reason"].drop_nulls().head(LOGGED_REJECTIONS):
        context.log(f"{context.partition_key}: rejected {reason}")
    sheet = image_sheet(
        context.store, accepted["pixels"], accepted["caption"].fill_null("").to_list()
    )
    return Result(
        metadata={
            "accepted": accepted.height,
            "rejected": table.height - accepted.height,
            "contact_sheet": sheet,
        }
    )


def _source_digest(context: StageContext) -> str:
    from hoi_assets.ppv.instance_images import instance_images_digest

    return instance_images_digest(context.partition_key, context.settings.instance_images)


CATEGORY_LORAS_SUITE = suite(
    log=[row_count(1), unique("step"), between("loss", 0, LARGEST_LOSS)],
    summary=[
        row_count(1, 1),
        not_null("lora_digest", "base_digest", "identifier"),
        between("last_loss", 0, "${gates.max_loss}"),
        between("instance_images", 1),
    ],
    samples=[row_count(1), not_null("pixels")],
    contents=[
        SOUND_WEIGHTS,
        STORED_PICTURES,
        # One half of a fresh LoRA is zero: nothing was learnt.
        unexpected_rows("zero_weights", "2 * zero_tensors >= tensors"),
    ],
    rounds=[
        unexpected_rows(
            "worse_lora_taken", "taken and (general_low < -margin or others_low < -margin)"
        ),
        unexpected_rows("new_lora_refused", "trained and not taken", blocking=False),
    ],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["instance_images"],
    optional_deps=["round_plan"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="1",
    suite=CATEGORY_LORAS_SUITE,
    tables=[LORA_SUMMARY, LORA_LOG, LORA_SAMPLES, CUT_CAPTIONS, ROUND_LORAS],
    settings=["lora", "sampling"],
    models=["base"],
    external_inputs=lambda context: _guard_of_loras(context),
)
def category_loras(context: StageContext, staging: Staging) -> Result:
    """A DreamBooth LoRA of SDXL's UNet for the category, with prior preservation, in diffusers'
    layout: `pipe.load_lora_weights(folder)` opens it. One that a round asks for is taken only if it
    is no worse on general prompts and those of other categories; else the one before stays."""
    from hoi_assets.charts import loss_curve
    from hoi_assets.ppv.round_loras import EARLIER, train_round_loras
    from hoi_assets.ppv.round_plan import read_plan

    instances = context.parent("instance_images")
    found = train_round_loras(
        context.store,
        context.settings,
        context.taxonomy,
        context.taxonomy.categories[context.partition_key],
        instances.table("rows"),
        instances.optional_table("rounds"),
        read_plan(context.version("round_plan")).rows,
        context.log,
    )
    proposer = found.in_force
    staging.add_folder("lora", proposer.folder)
    for digest, folder in found.earlier.items():
        staging.add_folder(f"{EARLIER}/{digest}", folder)
    if not found.table.is_empty():
        staging.write_table("rounds", found.table)
    staging.write_table("log", proposer.log)
    staging.write_table("summary", proposer.summary)
    staging.write_table("samples", proposer.samples)
    if not proposer.cut_captions.is_empty():
        staging.write_table("cut_captions", proposer.cut_captions)
    samples = proposer.samples.sort("seed", "method")
    sheet = image_sheet(context.store, samples["pixels"], samples["method"].to_list(), columns=4)
    return Result(
        metadata={
            **proposer.summary.row(0, named=True),
            "images_with_cut_captions": int(proposer.cut_captions["images"].sum()),
            **({} if found.table.is_empty() else {"rounds": Table(found.table.to_dicts())}),
            "loss_curve": Image(loss_curve(proposer.log), "image/png"),
            "samples_before_and_after": sheet,
            **validation_sheet(
                context.store,
                proposer.validation_images,
                context.settings.lora.num_validation_images,
            ),
            "use": Markdown(
                f"```python\npipe.load_lora_weights('<path>/lora')\n```\n"
                f"Prompts begin with `{proposer.identifier}`."
            ),
        }
    )


def _guard_of_loras(context: StageContext) -> dict[str, str]:
    """What judges a LoRA that a round asks for; empty where none does."""
    from hoi_assets.ppv.round_plan import read_plan
    from hoi_assets.store.weights import model_digest

    renewed = read_plan(context.version("round_plan")).rows.filter("renews_lora").height
    return {"weights of clip": model_digest(context.settings.models.clip)} if renewed else {}


class CandidateConfig(PublishConfig):
    """What can be set for one run of `candidate_images`."""

    per_prompt: int | None = Field(
        default=None, ge=1, description="Candidates per prompt; else candidates.per_prompt."
    )
    seed: int | None = Field(
        default=None, description="Seed of the noise; else candidates.seed of the profile."
    )

    def apply(self, settings: Settings) -> Settings:
        given = {"per_prompt": self.per_prompt, "seed": self.seed}
        changes = {name: value for name, value in given.items() if value is not None}
        candidates = settings.candidates.model_copy(update=changes)
        return settings.model_copy(update={"candidates": candidates})


CANDIDATE_IMAGES_SUITE = suite(
    rows=[
        row_count(1),
        unique("image_id"),
        not_null("image_id", "prompt_id", "prompt", "seed", "base_digest"),
        unexpected_rows("without_lora", "lora_version is not null and lora_digest is null"),
        in_set("status", ["accepted", "failed"]),
        ONE_CATEGORY,
        between("width", "${sampling.width}", "${sampling.width}"),
        between("height", "${sampling.height}", "${sampling.height}"),
        FAILED_SHARE,
        ACCEPTED_WITHOUT_PIXELS,
        FLAT_SHARE,
        REPEATED_PICTURES,
        CUT_PROMPTS,
        no_blank("prompt"),
    ],
    contents=[STORED_PICTURES],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["detailed_prompts"],
    deps_when={
        "category_loras": lambda settings: settings.models.proposer is None,
        # Only a goal of accepted images asks for verdicts while images are proposed.
        "verifier": lambda settings: settings.candidates.accepted_goal is not None,
    },
    group_name=PPV,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="2",
    suite=CANDIDATE_IMAGES_SUITE,
    tables=[CANDIDATE_ROWS],
    settings=["sampling", "candidates", "proposer"],
    models=["base", "proposer"],
    external_inputs=lambda context: _lora_of_user(context),
    config=CandidateConfig,
)
def candidate_images(context: StageContext, staging: Staging) -> Result:
    """Images proposed by the category's LoRA, or by `models.proposer`, one noise seed each; a row
    holds what it takes to draw its image again alone (`hoi replay IMAGE_ID`)."""
    from hoi_assets.ppv.auto_proposer import describe_proposer
    from hoi_assets.ppv.candidates import propose_candidates

    table = propose_candidates(
        context.store,
        context.settings,
        context.taxonomy.categories[context.partition_key],
        prompts=context.parent("detailed_prompts").table("rows"),
        lora=context.parent("category_loras") if "category_loras" in context.parents else None,
        verifier=context.parent("verifier") if "verifier" in context.parents else None,
        log=context.log,
    )
    staging.write_table("rows", table)
    context.record("image_id", table)
    drawn = table.filter(pl.col("status") == "accepted")
    shown = drawn.head(SHOWN_IMAGES)
    sheet = image_sheet(context.store, shown["pixels"], shown["prompt"].to_list())
    return Result(
        metadata={
            "candidates": drawn.height,
            "failed": table.height - drawn.height,
            **describe_proposer(context.settings, context.partition_key),
            "contact_sheet": sheet,
        }
    )


def _lora_of_user(context: StageContext) -> dict[str, str]:
    """The LoRA of `proposer.loras_folder` that draws the category; empty where there is none."""
    from hoi_assets.ppv.auto_proposer import category_lora

    found = category_lora(context.settings, context.partition_key)
    return {} if found is None else {"lora": found.digest}
