"""Re-denoising (DetailScribe, arXiv 2504.08714): a picture's first steps under its prompt, the
other steps under the corrected one.

The variants of a prompt share its seed, hence the steps before the switch. Those are computed once,
in the initial run, and branched. A batch holds one switch step and many prompts; it has the same
shape always, and a row keeps its slot, so that a variant has the bits of a run of its own that
switches halfway.

`s_reference` is what the published code does. Its callback comes after the step it is named for, so
the prompt drives s + 1 steps, and it leaves the pooled embedding as it was; its switch step 0 is a
plain run under the corrected prompt.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import (
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.sd3.loading import LoadedSD3
from hoi_assets.engines.sdxl.sampling import Draw, batches, image_key
from hoi_assets.engines.seeds import generator, seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest

REFINING_VERSION = "1"  # part of every variant's key: raise it when the same one gives other pixels
SCHEDULER = "flow_match_euler"
SWITCH_STEPS = (0, 1, 2, 4)


@dataclass(frozen=True)
class Compute:
    """What pictures cost.

    Attributes:
        passes: forward passes of the denoiser. One pass is one picture's latents once through the
            transformer, so under classifier-free guidance a step takes two. Empty slots of a batch
            do not count.
        seconds: wall time; a batch's is shared evenly by its pictures, empty slots included.
    """

    passes: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Compute") -> "Compute":
        return Compute(self.passes + other.passes, self.seconds + other.seconds)


@dataclass(frozen=True)
class Initial:
    """A row with its picture, or with the reason why there is none.

    Attributes:
        latents: number of steps done -> latents after them (channels, height, width), on the CPU.
    """

    row: Draw
    image: Image.Image | None
    reason: str | None
    compute: Compute
    latents: Mapping[int, Any]


@dataclass(frozen=True)
class Refinement:
    """A row to draw again under a corrected prompt.

    Attributes:
        latents: those of `Initial`; whatever a switch step needs beyond is computed again.
    """

    row: Draw
    corrected_prompt: str
    latents: Mapping[int, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Variant:
    """A refinement's picture for one switch step, or the reason why there is none.

    Attributes:
        compute: of the steps after the switch; steps before it that had to be computed again count
            with the refinement's first variant that needs them.
    """

    refinement: Refinement
    switch_step: int
    image: Image.Image | None
    reason: str | None
    compute: Compute


def initial_row(
    prompt: str,
    seed: int,
    position: int,
    batch_size: int,
    steps: int = 28,
    guidance_scale: float = 4.5,
    width: int = 1024,
    height: int = 1024,
    negative_prompt: str = "",
) -> Draw:
    """The row for `prompt`; `position` in its table fixes the slot."""
    return Draw(
        prompt=prompt,
        seed=seed,
        slot=position % batch_size,
        steps=steps,
        guidance_scale=guidance_scale,
        scheduler=SCHEDULER,
        width=width,
        height=height,
        negative_prompt=negative_prompt,
    )


def multi_seed(row: Draw, count: int) -> list[Draw]:
    """`row` and `count - 1` more of its prompt, each with noise of its own."""
    more = [seed_of("multi_seed", row.seed, number) for number in range(1, count)]
    return [row, *(replace(row, seed=seed) for seed in more)]


def own_steps(switch_step: int, s_reference: bool = False) -> int:
    """How many steps the first prompt drives."""
    return switch_step + 1 if s_reference and switch_step else switch_step


def passes(row: Draw, steps_done: int = 0) -> int:
    """Forward passes of the denoiser that `row` takes after `steps_done` steps.

    >>> passes(initial_row("a red ball", seed=0, position=0, batch_size=1), steps_done=4)
    48
    """
    return (row.steps - steps_done) * (2 if row.guidance_scale > 1 else 1)


def refining_passes(
    row: Draw, switch_steps: Sequence[int] = SWITCH_STEPS, s_reference: bool = False
) -> int:
    """Forward passes of all variants of `row`, the initial picture's own left out.

    >>> refining_passes(initial_row("a red ball", seed=0, position=0, batch_size=1))
    210
    """
    return sum(passes(row, _start(row, step, s_reference)) for step in switch_steps)


def pictures_within(row: Draw, budget: int) -> int:
    """How many plain pictures like `row` a budget of forward passes pays; at least one."""
    return max(1, budget // passes(row))


def variant_key(refinement: Refinement, switch_step: int, s_reference: bool, base: str) -> str:
    """Hash of all that determines a variant's picture; slot and environment do not belong.

    A variant that is a plain picture has that picture's key.

    Args:
        base: digest of the model, `LoadedSD3.digest`.
    """
    row = refinement.row
    prompt, start = (
        _prompt(refinement, switch_step, s_reference),
        _start(row, switch_step, s_reference),
    )
    after = image_key(replace(row, prompt=prompt), base)
    if not start:
        return after
    return digest(
        {
            "refining": REFINING_VERSION,
            "before": image_key(row, base),
            "after": after,
            "switch_after_steps": start,
            "pooled_switched": not s_reference,
        }
    )


def draw_initial(
    loaded: LoadedSD3,
    rows: Iterable[Draw],
    batch_size: int,
    switch_steps: Sequence[int] = (),
    s_reference: bool = False,
) -> Iterator[Initial]:
    """Draw `rows`; each comes back once, as soon as its batch is finished.

    Args:
        batch_size: number of slots; the same whenever the same bits are wanted.
        switch_steps: those whose latents `refine` is to find in the results.

    Raises:
        HoiError: before anything is drawn, for a row that cannot be drawn with this model.
    """
    rows = list(rows)
    for row in rows:
        _check(loaded, row, batch_size)
    return _draw_initial(loaded, rows, batch_size, switch_steps, s_reference)


def refine(
    loaded: LoadedSD3,
    refinements: Iterable[Refinement],
    batch_size: int,
    switch_steps: Sequence[int] = SWITCH_STEPS,
    s_reference: bool = False,
) -> Iterator[Variant]:
    """Draw each refinement once per switch step; variants come batch by batch, in slot order.

    Args:
        batch_size: as the initial pictures were drawn with.
        switch_steps: number of steps under the row's own prompt; 0 is a plain picture under the
            corrected prompt, all steps (or more) is the initial picture again.
        s_reference: do as the published code does, see the module.

    Raises:
        HoiError: before anything is drawn, for a row that cannot be drawn with this model.
    """
    refinements = list(refinements)
    for one in refinements:
        _check(loaded, one.row, batch_size)
    if any(step < 0 for step in switch_steps):
        raise HoiError(f"switch steps {list(switch_steps)}", "name numbers from 0 to the steps")
    return _refine(loaded, refinements, batch_size, switch_steps, s_reference)


def _start(row: Draw, switch_step: int, s_reference: bool) -> int:
    """Steps done where a variant's run begins; 0 where it is a plain picture's."""
    done = own_steps(switch_step, s_reference)
    return done if done < row.steps else 0


def _prompt(refinement: Refinement, switch_step: int, s_reference: bool) -> str:
    """The prompt of a variant's run."""
    left = refinement.row.steps - own_steps(switch_step, s_reference)
    return refinement.corrected_prompt if left > 0 else refinement.row.prompt


def _draw_initial(
    loaded: LoadedSD3,
    rows: list[Draw],
    batch_size: int,
    switch_steps: Sequence[int],
    s_reference: bool,
) -> Iterator[Initial]:
    for batch in batches(rows, batch_size):
        call = next(iter(batch.values()))
        keep = {_start(call, step, s_reference) for step in switch_steps}
        begin = time.perf_counter()
        prompts = {slot: row.prompt for slot, row in batch.items()}
        decoded, kept = _denoise(loaded, batch, prompts, batch_size, keep=keep)
        images = tensor_to_images(decoded)
        seconds = (time.perf_counter() - begin) / len(batch)
        for slot, row in batch.items():
            yield Initial(
                row,
                images[slot],
                _reason(images[slot]),
                Compute(passes(row), seconds),
                {done: latents[slot].clone() for done, latents in kept.items()},
            )


def _refine(
    loaded: LoadedSD3,
    refinements: list[Refinement],
    batch_size: int,
    switch_steps: Sequence[int],
    s_reference: bool,
) -> Iterator[Variant]:
    for batch in _batches(refinements, batch_size):
        rows = {slot: one.row for slot, one in batch.items()}
        call = next(iter(rows.values()))
        starts = {step: _start(call, step, s_reference) for step in switch_steps}
        latents, again = _prefixes(loaded, batch, batch_size, set(starts.values()) - {0})
        for step, start in starts.items():
            begin = time.perf_counter()
            kept_pooled = {slot: row.prompt for slot, row in rows.items()}
            decoded, _ = _denoise(
                loaded,
                rows,
                {slot: _prompt(one, step, s_reference) for slot, one in batch.items()},
                batch_size,
                pooled=kept_pooled if s_reference and start else None,
                start=start,
                latents={slot: latents[slot][start] for slot in rows} if start else None,
            )
            images = tensor_to_images(decoded)
            seconds = (time.perf_counter() - begin) / len(batch)
            for slot, one in batch.items():
                cost = Compute(passes(one.row, start), seconds)
                if start:
                    cost += again.pop(slot, Compute())
                yield Variant(one, step, images[slot], _reason(images[slot]), cost)


def _batches(refinements: list[Refinement], batch_size: int) -> Iterator[dict[int, Refinement]]:
    """As `hoi_assets.engines.sdxl.sampling.batches` arranges their rows."""
    waiting: dict[Draw, deque[Refinement]] = defaultdict(deque)
    for one in refinements:
        waiting[one.row].append(one)
    for batch in batches([one.row for one in refinements], batch_size):
        yield {slot: waiting[row].popleft() for slot, row in batch.items()}


def _prefixes(
    loaded: LoadedSD3, batch: dict[int, Refinement], batch_size: int, starts: set[int]
) -> tuple[dict[int, dict[int, Any]], dict[int, Compute]]:
    """Per slot the latents at `starts`, and what it cost to compute those that were not given."""
    latents = {slot: dict(one.latents) for slot, one in batch.items()}
    rows = {slot: one.row for slot, one in batch.items() if starts - one.latents.keys()}
    if not rows:
        return latents, {}
    begin = time.perf_counter()
    prompts = {slot: row.prompt for slot, row in rows.items()}
    last = max(starts)
    _, kept = _denoise(loaded, rows, prompts, batch_size, keep=starts, stop=last)
    seconds = (time.perf_counter() - begin) / len(rows)
    for slot in rows:
        latents[slot] |= {done: whole[slot] for done, whole in kept.items()}
    return latents, {
        slot: Compute(passes(row) - passes(row, last), seconds) for slot, row in rows.items()
    }


def _denoise(
    loaded: LoadedSD3,
    rows: Mapping[int, Draw],
    prompts: Mapping[int, str],
    batch_size: int,
    pooled: Mapping[int, str] | None = None,
    start: int = 0,
    latents: Mapping[int, Any] | None = None,
    keep: Iterable[int] = (),
    stop: int | None = None,
) -> tuple[Any, dict[int, Any]]:
    """One call of the pipeline.

    Args:
        rows: by slot, all of one shape, steps and guidance; the other slots hold a filler.
        pooled: texts of the pooled embeddings; None: the prompts.
        start: steps that `latents` (by slot) have behind them; 0 starts from the rows' noise.
        keep: numbers of steps after which latents are kept, counted from the noise.
        stop: number of steps after which the call ends without decoding.

    Returns:
        Pictures (n, 3, height, width) in [0, 1], and the kept latents by number of steps.
    """
    import torch

    pipe, call = loaded.pipe, next(iter(rows.values()))
    places = [rows.get(slot) for slot in range(batch_size)]
    shape = (
        pipe.transformer.config.in_channels,
        call.height // pipe.vae_scale_factor,
        call.width // pipe.vae_scale_factor,
    )
    if latents is None:
        noise = [torch.randn(shape, generator=generator(r.seed if r else 0)) for r in places]
    else:
        noise = [latents.get(slot, torch.zeros(shape)) for slot in range(batch_size)]
    texts = [prompts.get(slot) for slot in range(batch_size)]
    negatives = [row.negative_prompt if row else None for row in places]
    guided = call.guidance_scale > 1
    embeds = prompt_embeddings(loaded, texts, negatives, guided)
    if pooled is not None:
        others = [pooled.get(slot) for slot in range(batch_size)]
        name = "pooled_prompt_embeds"
        embeds[name] = prompt_embeddings(loaded, others, negatives, guided)[name]
    wanted, kept = set(keep), {}

    def watch(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        done = start + index + 1
        if done in wanted:
            kept[done] = tensors["latents"].detach().cpu().clone()
        if done == stop:
            pipe._interrupt = True  # how diffusers has a callback end a run
        return {}

    set_decode_slicing(loaded, call.width, call.height)
    dtype = pipe.transformer.dtype
    with _schedule(loaded, call.steps, start) as times, torch.no_grad():
        try:
            decoded = pipe(
                **embeds,
                **times,
                latents=torch.stack([one.to(dtype) for one in noise]),
                guidance_scale=call.guidance_scale,
                width=call.width,
                height=call.height,
                callback_on_step_end=watch,
                output_type="pt" if stop is None else "latent",
            ).images
        except torch.OutOfMemoryError as error:
            raise HoiError(
                f"a batch of {batch_size} pictures of {call.width}x{call.height} px does not fit "
                f"into the memory of {loaded.device}",
                "lower the batch size, or the size of the pictures",
            ) from error
    return decoded, kept


@contextmanager
def _schedule(loaded: LoadedSD3, steps: int, start: int) -> Iterator[dict[str, Any]]:
    """Lend the pipeline a fresh scheduler, and give the arguments that name its remaining steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    own = loaded.pipe.scheduler
    whole = FlowMatchEulerDiscreteScheduler.from_config(own.config)
    times: dict[str, Any] = {"num_inference_steps": steps}
    loaded.pipe.scheduler = whole
    if start:
        whole.set_timesteps(steps)
        times = {"sigmas": whole.sigmas[start:-1].tolist()}
        # Those sigmas are shifted already.
        loaded.pipe.scheduler = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=own.config.num_train_timesteps
        )
    try:
        yield times
    finally:
        loaded.pipe.scheduler = own


def _reason(image: Image.Image | None) -> str | None:
    return None if image else "not_finite: the model gave NaN or infinity"


def _check(loaded: LoadedSD3, row: Draw, batch_size: int) -> None:
    transformer = loaded.pipe.transformer.config
    side = loaded.pipe.vae_scale_factor * transformer.patch_size
    if not 0 <= row.slot < batch_size:
        raise HoiError(
            f"row {row.prompt!r} has slot {row.slot}, outside a batch of {batch_size}",
            "set the batch size to the value that the row was drawn with",
        )
    if row.width % side or row.height % side:
        raise HoiError(
            f"picture size {row.width}x{row.height} is no multiple of {side}",
            "mend width and height",
        )
    if max(row.width, row.height) > transformer.pos_embed_max_size * side:
        raise HoiError(
            f"picture size {row.width}x{row.height} is beyond the model's "
            f"{transformer.pos_embed_max_size * side}",
            "mend width and height",
        )
    if row.scheduler != SCHEDULER:
        raise HoiError(f"unknown scheduler {row.scheduler!r}", f"name {SCHEDULER}")
    if row.lora is not None:
        raise HoiError("a LoRA for Stable Diffusion 3", "draw the row without one")
    if loaded.pipe.scheduler.config.use_dynamic_shifting:
        raise HoiError(
            f"model {loaded.ref.source!r} shifts its noise schedule by the picture's size",
            "use a Stable Diffusion 3 or 3.5 model, whose shift is fixed",
        )
