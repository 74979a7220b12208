"""Method `image_edit`: an image-editing pipeline corrects the initial image by the critique.

Qwen-Image-Edit, FLUX.1 Kontext and their like take a picture and an instruction. Evaluations (NFE)
are counted as they are made; one of such a model costs several of the benchmark model's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.detailscribe.baselines.compute import evaluation_budget
from hoi_assets.detailscribe.critique import Critique
from hoi_assets.detailscribe.image_rows import (
    IMAGE_EDIT,
    Record,
    candidate_row,
    image_columns,
    redrawable_row,
)
from hoi_assets.detailscribe.selection import (
    ComponentsByRow,
    critique_candidates,
    select_by_critic,
)
from hoi_assets.engines.auto.sampling import (
    BATCH_SIZE,
    SCHEDULER,
    AutoSpec,
    auto_key,
    draw_images,
    unused_options,
)
from hoi_assets.engines.image_cache import CachedImage, get_or_generate
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.engines.sd3.compute import denoiser_evaluations
from hoi_assets.engines.seeds import seed_of
from hoi_assets.progress import Log
from hoi_assets.settings import ImageEditing, ModelRef, Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import ID_LENGTH

EVALUATIONS_KIND = "image_evaluations"  # by the image's key: NFE, counted while it was drawn
SAVE_EVERY = 4

EDITS = Table(
    "edits",
    "how an image-editing model drew one candidate",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("candidate", pl.Int64, "number of the image among the method's, from 1"),
        Column("picture", pl.String, "digest of the initial image's pixels"),
        Column("instruction", pl.String, "what the model was told"),
        Column(
            "true_cfg_scale",
            pl.Float64,
            "classifier-free guidance; null: the pipeline's default",
            nullable=True,
        ),
    ),
    key=("row_id", "candidate"),
    optional=True,
)


@dataclass(frozen=True)
class Edited:
    """Candidates of all rows with one selected per row, and a row of EDITS for each edit."""

    records: list[Record]
    edits: pl.DataFrame


def draw_image_edits(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    log: Log,
) -> Edited:
    """The initial image as candidate 0, then edits of it by the critique's corrections, each with
    its own noise; the critic selects.

    There are as many edits as the variants' denoiser evaluations pay for, at least one and at most
    `image_editing.max_edits`.

    Args:
        initial: rows of `initial_images` that can be refined. components: by row_id.

    Raises:
        HoiError: the model cannot be loaded, or does not edit.
    """
    options = settings.image_editing or ImageEditing()
    critiques = critique_candidates(store, settings, initial, components, log)
    told = {
        row["row_id"]: instruction_of(critique, options)
        for row, critique in zip(initial, critiques, strict=True)
    }
    able = [row for row in initial if told[row["row_id"]] is not None]

    def specs(row: Record, numbers: range) -> list[AutoSpec]:
        return [_spec(options, row, told[row["row_id"]] or "", number) for number in numbers]

    first = {row["row_id"]: specs(row, range(1, 2)) for row in able}
    drawn = _draw(store, settings, first, log)
    more = {
        row["row_id"]: specs(row, range(2, 1 + _affordable(settings, options, row, drawn)))
        for row in able
    }
    others = _draw(store, settings, more, log)
    wanted = {row_id: [*own, *more[row_id]] for row_id, own in first.items()}
    columns = {row_id: [*own, *others[row_id]] for row_id, own in drawn.items()}
    candidates = {
        row["row_id"]: [
            row | {"method": IMAGE_EDIT, "candidate": 0},
            *(
                candidate_row(row, IMAGE_EDIT, number, one)
                for number, one in enumerate(columns.get(row["row_id"], ()), start=1)
            ),
        ]
        for row in initial
    }
    not_corrected = candidates.keys() - wanted.keys()
    edits = EDITS.frame(
        {
            "row_id": row_id,
            "candidate": number,
            "picture": one.picture,
            "instruction": one.row.prompt,
            "true_cfg_scale": one.true_cfg_scale,
        }
        for row_id, own in wanted.items()
        for number, one in enumerate(own, start=1)
    )
    records = select_by_critic(store, settings, candidates, components, log, not_corrected)
    return Edited(records, edits)


def instruction_of(critique: Critique | None, options: ImageEditing) -> str | None:
    """What the editor is told: the corrections in order of impact; None where there are none."""
    if critique is None:
        return None
    corrections = [
        one.correction for one in critique.findings if not one.satisfied and one.correction
    ]
    if not corrections:
        return None
    return options.instruction.replace("{corrections}", "; ".join(dict.fromkeys(corrections)))


def _spec(options: ImageEditing, row: Record, instruction: str, number: int) -> AutoSpec:
    drawn = ImageSpec(
        prompt=instruction,
        seed=seed_of(IMAGE_EDIT, row["seed"], number),
        slot=0,
        steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
        scheduler=SCHEDULER,
        width=row["width"],
        height=row["height"],
        negative_prompt=options.negative_prompt,
    )
    return AutoSpec(drawn, options.true_cfg_scale, picture=row["pixels"])


def _affordable(
    settings: Settings, options: ImageEditing, row: Record, drawn: Mapping[str, list[Record]]
) -> int:
    """How many edits of a row its budget pays for, by what the first one took."""
    plain = redrawable_row(row, settings)
    left = evaluation_budget(settings, plain) - denoiser_evaluations(plain)
    took = drawn[row["row_id"]][0]["denoiser_evaluations"]
    return min(options.max_edits, max(1, left // took)) if took else 1


def editor_model(settings: Settings) -> ModelRef:
    """`models.editor`, which is set wherever this method runs."""
    assert settings.models.editor is not None
    return settings.models.editor


def _draw(
    store: Store, settings: Settings, specs: Mapping[str, Sequence[AutoSpec]], log: Log
) -> dict[str, list[Record]]:
    """By row_id the columns of its edits, found in the image cache or drawn now."""
    ref = editor_model(settings)
    base = model_digest(ref)
    wanted = {auto_key(one, base): one for own in specs.values() for one in own}

    def generate(missing: Sequence[AutoSpec]) -> Iterator[NewImage]:
        from hoi_assets.engines.auto.loading import load_editor
        from hoi_assets.engines.device import configure_torch

        loaded = load_editor(ref, configure_torch(settings))
        for name in unused_options(loaded, missing[0]):
            log(f"models.editor takes no {name}: it is not used")
        environment = loaded.environment(BATCH_SIZE)
        for one in draw_images(loaded, missing, store.images.open):
            key = auto_key(one.spec, base)
            store.ledger.put(EVALUATIONS_KIND, {key: one.denoiser_evaluations})
            yield NewImage(key, 0, one.image, one.reason, environment, one.seconds)

    found = get_or_generate(store, wanted, generate, SAVE_EVERY, "image edits", log)
    spent: dict[str, Any] = store.ledger.get(EVALUATIONS_KIND, wanted)
    return {
        row_id: [
            image_columns(CachedImage(one.row, key[:ID_LENGTH], base, found[key]))
            | {"denoiser_evaluations": spent.get(key, 0)}
            for one in own
            for key in [auto_key(one, base)]
        ]
        for row_id, own in specs.items()
    }
