"""Pictures of the benchmark model (Stable Diffusion 3), found or drawn, and their tables.

Latents at the switch steps are kept beside the images, so that `refined_images` goes on from
where `initial_images` left off. They are a cache: what is missing is computed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.image_cache import CachedImage, NewImage, get_or_generate
from hoi_assets.engines.image_spec import ImageSpec, image_key
from hoi_assets.engines.sd3.compute import (
    denoiser_evaluations,
    initial_image_spec,
    variant_evaluations,
)
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
    variant_key,
)
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

LATENTS = "latents"
LATENTS_MODE = 0o644

SCHEMA: dict[str, Any] = {
    "row_id": pl.String,
    "scenario": pl.String,
    "prompt": pl.String,
    "method": pl.String,
    "candidate": pl.Int64,
    "image_id": pl.String,
    "drawn_prompt": pl.String,
    "corrected_prompt": pl.String,
    "switch_step": pl.Int64,
    "s_reference": pl.Boolean,
    "negative_prompt": pl.String,
    "seed": pl.Int64,
    "num_inference_steps": pl.Int64,
    "guidance_scale": pl.Float64,
    "scheduler": pl.String,
    "width": pl.Int64,
    "height": pl.Int64,
    "base_digest": pl.String,
    "slot": pl.Int64,
    "batch_size": pl.Int64,
    "dtype": pl.String,
    "device": pl.String,
    "threads": pl.Int64,
    "cpu_capability": pl.String,
    "passes": pl.Int64,
    "pixels": pl.String,
    "pixel_std": pl.Float64,
    "held": pl.Int64,
    "probability": pl.Float64,
    "selected": pl.Boolean,
    "why": pl.String,
    "status": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True)
class Variant:
    """A refinement's picture for one switch step, as it was drawn first."""

    refinement: Redenoising
    switch_step: int
    s_reference: bool
    known: CachedImage

    @property
    def passes(self) -> int:
        """Forward passes after the switch; the steps before it are the initial picture's."""
        return variant_evaluations(self.refinement.row, (self.switch_step,), self.s_reference)


def benchmark_model(settings: Settings) -> ModelRef:
    """The model of the second line.

    Raises:
        HoiError: the profile names none.
    """
    if settings.models.benchmark is None:
        raise HoiError(
            "no benchmark model is set",
            "name a Stable Diffusion 3 or 3.5 pipeline under models.benchmark in the profile",
        )
    return settings.models.benchmark


def plain_row(settings: Settings, row_id: str, prompt: str, position: int) -> ImageSpec:
    """What the plain picture of a benchmark row is drawn from; `position` fixes its slot."""
    options = settings.refining
    return initial_image_spec(
        prompt,
        seed_of("interacting", options.seed, row_id),
        position,
        options.batch_size,
        options.num_inference_steps,
        options.guidance_scale,
        options.width,
        options.height,
        options.negative_prompt,
    )


def draw_benchmark(
    store: Store,
    settings: Settings,
    rows: Sequence[ImageSpec],
    label: str,
    log: Log,
    keep_latents: bool = False,
) -> list[CachedImage]:
    """The pictures of `rows`, in order; those never made (or lost on disk) are drawn now.

    Args:
        keep_latents: those at the switch steps, for `draw_variants`.
    """
    ref, options = benchmark_model(settings), settings.refining
    base = model_digest(ref)
    keys = [image_key(row, base) for row in rows]
    switch_steps = options.switch_steps if keep_latents else ()

    def drawn(todo: Sequence[ImageSpec]) -> Iterator[NewImage]:
        loaded, facts = _loaded(settings)
        for one in generate_initial_images(
            loaded, todo, options.batch_size, switch_steps, options.s_reference
        ):
            key = image_key(one.row, base)
            if one.image is not None:
                _keep_latents(store, key, one.latents, options.batch_size)
            yield NewImage(key, one.row.slot, one.image, one.reason, facts, one.compute.seconds)

    kept = get_or_generate(
        store,
        dict(zip(keys, rows, strict=True)),
        drawn,
        options.batch_size,
        label,
        log,
        len(rows),
    )
    return [
        CachedImage(row=row, image_id=key[:16], base_digest=base, stored=kept[key])
        for key, row in zip(keys, rows, strict=True)
    ]


def draw_variants(
    store: Store, settings: Settings, refinements: Sequence[Redenoising], label: str, log: Log
) -> list[list[Variant]]:
    """Per refinement its pictures, one for each switch step of the settings; found or drawn."""
    ref, options = benchmark_model(settings), settings.refining
    base = model_digest(ref)
    steps, reference = options.switch_steps, options.s_reference
    keys = [
        {step: variant_key(one, step, reference, base) for step in steps} for one in refinements
    ]
    wanted = {
        own[step]: (one, step) for one, own in zip(refinements, keys, strict=True) for step in steps
    }

    def drawn(todo: Sequence[tuple[Redenoising, int]]) -> Iterator[NewImage]:
        loaded, facts = _loaded(settings)
        for lacking, missing in _by_lack(todo).items():
            chosen = [_with_latents(store, one, base, options.batch_size) for one in missing]
            for made in generate_variants(loaded, chosen, options.batch_size, lacking, reference):
                key = variant_key(made.redenoising, made.switch_step, reference, base)
                slot = made.redenoising.row.slot
                spent = made.compute.seconds
                yield NewImage(key, slot, made.image, made.reason, facts, spent)

    kept = get_or_generate(store, wanted, drawn, options.batch_size, label, log)
    return [
        [
            Variant(
                one, step, reference, CachedImage(one.row, own[step][:16], base, kept[own[step]])
            )
            for step in steps
        ]
        for one, own in zip(refinements, keys, strict=True)
    ]


def _by_lack(
    todo: Sequence[tuple[Redenoising, int]],
) -> dict[tuple[int, ...], list[Redenoising]]:
    """Refinements by the switch steps they lack."""
    lacking: dict[Redenoising, list[int]] = {}
    for one, step in todo:
        lacking.setdefault(one, []).append(step)
    groups: dict[tuple[int, ...], list[Redenoising]] = {}
    for one, steps in lacking.items():
        groups.setdefault(tuple(steps), []).append(one)
    return groups


def _loaded(settings: Settings) -> tuple[Any, dict[str, Any]]:
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.sd3.loading import load_sd3

    loaded = load_sd3(benchmark_model(settings), configure_torch(settings))
    return loaded, loaded.environment(settings.refining.batch_size)


def _latents_file(store: Store, key: str, batch_size: int) -> Path:
    # In a batch of another size the same steps give other bits.
    return store.home / LATENTS / key[:2] / f"{key}-{batch_size}.safetensors"


def _keep_latents(store: Store, key: str, latents: Mapping[int, Any], batch_size: int) -> None:
    from safetensors.torch import save

    from hoi_assets.store.disk import replace_bytes

    if not latents:
        return
    path = _latents_file(store, key, batch_size)
    data = save({str(done): one.contiguous() for done, one in latents.items()})
    replace_bytes(path, data, store.staging, durable=False, mode=LATENTS_MODE)


def _with_latents(store: Store, one: Redenoising, base: str, batch_size: int) -> Redenoising:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _latents_file(store, image_key(one.row, base), batch_size)
    try:
        found = load_file(path) if path.is_file() else {}
    except (SafetensorError, OSError):
        found = {}  # a cut file is as good as none
    return replace(one, latents={int(done): latents for done, latents in found.items()})


# --- rows of tables -------------------------------------------------------------------------------


def picture_record(known: CachedImage) -> dict[str, Any]:
    """The columns that say how a plain picture was drawn."""
    record = known.as_record()
    del record["lora_digest"]
    return record | {
        "corrected_prompt": None,
        "switch_step": None,
        "s_reference": None,
        "passes": denoiser_evaluations(known.row),
    }


def variant_record(variant: Variant) -> dict[str, Any]:
    """The columns that say how a variant was drawn."""
    return picture_record(variant.known) | {
        "passes": variant.passes,
        "corrected_prompt": variant.refinement.corrected_prompt,
        "switch_step": variant.switch_step,
        "s_reference": variant.s_reference,
    }


def row_to_vary(record: Mapping[str, Any], settings: Settings) -> ImageSpec:
    """`drawn_row` with a slot in the settings' batch, which may be smaller than it was then."""
    row = drawn_row(record)
    return replace(row, slot=row.slot % settings.refining.batch_size)


def drawn_row(record: Mapping[str, Any]) -> ImageSpec:
    """What a table's row was drawn from: the first prompt's picture where it is a variant."""
    return ImageSpec(
        prompt=record["drawn_prompt"],
        seed=record["seed"],
        slot=record["slot"],
        steps=record["num_inference_steps"],
        guidance_scale=record["guidance_scale"],
        scheduler=record["scheduler"],
        width=record["width"],
        height=record["height"],
        negative_prompt=record["negative_prompt"],
    )
