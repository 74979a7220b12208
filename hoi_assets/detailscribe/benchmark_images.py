"""Images of the benchmark model (Stable Diffusion 3), found in the image cache or drawn now.

Latents at the switch steps are stored beside the images, so that `refined_images` branches where
`initial_images` left off. They are a cache: missing and damaged ones are computed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hoi_assets.engines.batch_map import Compute, map_batches
from hoi_assets.engines.batch_sizes import recorded_at_once
from hoi_assets.engines.drawing import noting_limits, with_batch_size, work_of
from hoi_assets.engines.image_cache import CachedImage, get_or_generate
from hoi_assets.engines.image_spec import ImageSpec, batches_of_rows, image_key, in_batches_of
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.engines.pipeline_files import chunk_counter
from hoi_assets.engines.pretrained import content_digest
from hoi_assets.engines.sd3.compute import initial_image_spec, variant_evaluations
from hoi_assets.engines.sd3.drawing import DrawnWithLatents, SD3Drawing, SD3Redenoising
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    batches_of_redenoisings,
    variant_key,
)
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import ID_LENGTH

LATENTS = "latents"
LATENTS_MODE = 0o644
LATENTS_DIGEST = "digest"  # in a file's metadata, of its tensors


@dataclass(frozen=True)
class CachedVariant:
    """A refinement's image for one switch step, as the image cache has it."""

    refinement: Redenoising
    switch_step: int
    s_reference: bool
    known: CachedImage

    @property
    def denoiser_evaluations(self) -> int:
        """Evaluations after the switch; those before it are the initial image's."""
        return variant_evaluations(self.refinement.row, (self.switch_step,), self.s_reference)


def benchmark_model(settings: Settings) -> ModelRef:
    """The model that draws the benchmark's images.

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
    """What the initial image of a benchmark row is drawn from; `position` fixes its slot."""
    options = settings.redenoising
    seeds = options.seeds
    return initial_image_spec(
        prompt,
        seed_of("interacting", options.seed, row_id) if seeds is None else seeds[0],
        position,
        options.batch_size,
        options.num_inference_steps,
        options.guidance_scale,
        options.width,
        options.height,
        options.negative_prompt,
    )


def draw_benchmark_images(
    store: Store,
    settings: Settings,
    rows: Sequence[ImageSpec],
    label: str,
    log: Log,
    keep_latents: bool = False,
) -> list[CachedImage]:
    """The images of `rows`, in order; those never drawn (or lost on disk) are drawn now.

    Args:
        keep_latents: store those at the switch steps, for `draw_variants`.
    """
    ref, options = benchmark_model(settings), settings.redenoising
    base = model_digest(ref)
    keys = [image_key(row, base) for row in rows]
    switch_steps = options.switch_steps if keep_latents else ()

    def draw(missing: Sequence[ImageSpec]) -> Iterator[NewImage]:
        drawing = with_batch_size(
            SD3Drawing(
                compute=Compute.of(settings),
                ref=ref,
                digest=base,
                switch_steps=switch_steps,
                s_reference=options.s_reference,
            ),
            store.home,
            options.batch_size,
            missing[0],
            log,
        )
        batches = batches_of_rows(missing, drawing.batch_size, chunk_counter(ref))
        drawn = map_batches(drawing, list(batches), lambda batch: batch)
        images = _storing_latents(store, drawn)
        yield from noting_limits(images, drawing, store.home, work_of(missing[0]))

    found = get_or_generate(
        store,
        dict(zip(keys, rows, strict=True)),
        draw,
        recorded_at_once(options.batch_size),
        label,
        log,
        len(rows),
    )
    return [
        CachedImage(row=row, image_id=key[:ID_LENGTH], base_digest=base, stored=found[key])
        for key, row in zip(keys, rows, strict=True)
    ]


def draw_variants(
    store: Store, settings: Settings, refinements: Sequence[Redenoising], label: str, log: Log
) -> list[list[CachedVariant]]:
    """Per refinement its variants, one for each switch step of the settings; found or drawn."""
    ref, options = benchmark_model(settings), settings.redenoising
    base = model_digest(ref)
    switch_steps, s_reference = options.switch_steps, options.s_reference
    keys = [
        {step: variant_key(one, step, s_reference, base) for step in switch_steps}
        for one in refinements
    ]
    wanted = {
        own[step]: (one, step)
        for one, own in zip(refinements, keys, strict=True)
        for step in switch_steps
    }

    def draw(missing: Sequence[tuple[Redenoising, int]]) -> Iterator[NewImage]:
        row = missing[0][0].row
        drawing = with_batch_size(
            SD3Redenoising(
                compute=Compute.of(settings),
                ref=ref,
                digest=base,
                switch_steps=switch_steps,
                s_reference=s_reference,
            ),
            store.home,
            options.batch_size,
            row,
            log,
        )
        size = drawing.batch_size
        for steps, group in _by_missing_steps(missing).items():
            in_slots = [replace(one, row=in_batches_of(one.row, size)) for one in group]
            batches = batches_of_redenoisings(in_slots, size, chunk_counter(ref))
            images = map_batches(
                replace(drawing, switch_steps=steps),
                list(batches),
                lambda batch: [_load_latents(store, one, base, size) for one in batch],
            )
            yield from noting_limits(images, drawing, store.home, work_of(row))

    found = get_or_generate(store, wanted, draw, recorded_at_once(options.batch_size), label, log)
    return [
        [
            CachedVariant(
                one, step, s_reference, CachedImage(one.row, key[:ID_LENGTH], base, found[key])
            )
            for step, key in own.items()
        ]
        for one, own in zip(refinements, keys, strict=True)
    ]


def _by_missing_steps(
    missing: Sequence[tuple[Redenoising, int]],
) -> dict[tuple[int, ...], list[Redenoising]]:
    """Refinements by the switch steps that they lack."""
    steps_of: dict[Redenoising, list[int]] = {}
    for refinement, step in missing:
        steps_of.setdefault(refinement, []).append(step)
    groups: dict[tuple[int, ...], list[Redenoising]] = {}
    for refinement, steps in steps_of.items():
        groups.setdefault(tuple(steps), []).append(refinement)
    return groups


def _storing_latents(store: Store, drawn: Iterable[DrawnWithLatents]) -> Iterator[NewImage]:
    for one in drawn:
        if one.image.image is not None:
            size = one.image.environment["batch_size"]
            _store_latents(store, one.image.key, one.latents, size)
        yield one.image


def _latents_path(store: Store, key: str, batch_size: int) -> Path:
    # In a batch of another size the same steps give other bits.
    return store.home / LATENTS / key[:2] / f"{key}-{batch_size}.safetensors"


def _store_latents(store: Store, key: str, latents: Mapping[int, Any], batch_size: int) -> None:
    from safetensors.torch import save

    from hoi_assets.store.disk import replace_bytes

    if not latents:
        return
    path = _latents_path(store, key, batch_size)
    tensors = {str(steps): one.contiguous() for steps, one in latents.items()}
    data = save(tensors, metadata={LATENTS_DIGEST: content_digest(tensors, {})})
    replace_bytes(path, data, store.staging, durable=False, mode=LATENTS_MODE)


def _load_latents(store: Store, one: Redenoising, base: str, batch_size: int) -> Redenoising:
    """The refinement with the latents that are stored, possibly none."""
    from safetensors import SafetensorError, safe_open

    path = _latents_path(store, image_key(one.row, base), batch_size)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = (file.metadata() or {}).get(LATENTS_DIGEST)
    except (SafetensorError, OSError):
        found, written = {}, None
    if written != content_digest(found, {}):
        found = {}  # absent or damaged: the steps are computed again
    return replace(one, latents={int(steps): latents for steps, latents in found.items()})
