"""Specifications of Stable Diffusion 3 images and their re-denoised variants, and their cost.

Cost is counted in denoiser evaluations (NFE): one is the latents of one image once through the
transformer, so that a step under classifier-free guidance takes two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hoi_assets.engines.image_spec import ImageSpec, slot_of
from hoi_assets.engines.seeds import seed_of
from hoi_assets.settings import BatchSize

SCHEDULER = "flow_match_euler"
SWITCH_STEPS = (0, 1, 2, 4)


@dataclass(frozen=True)
class ComputeCost:
    """What images cost.

    Attributes:
        denoiser_evaluations: NFE; the empty slots of a batch do not count.
        seconds: wall time; a batch's is shared evenly by its images.
    """

    denoiser_evaluations: int = 0
    seconds: float = 0.0

    def __add__(self, other: "ComputeCost") -> "ComputeCost":
        return ComputeCost(
            self.denoiser_evaluations + other.denoiser_evaluations, self.seconds + other.seconds
        )


def initial_image_spec(
    prompt: str,
    seed: int,
    position: int,
    batch_size: BatchSize,
    steps: int = 28,
    guidance_scale: float = 4.5,
    width: int = 1024,
    height: int = 1024,
    negative_prompt: str = "",
) -> ImageSpec:
    """The specification for `prompt`; `position` in its table fixes the slot."""
    return ImageSpec(
        prompt=prompt,
        seed=seed,
        slot=slot_of(position, batch_size),
        steps=steps,
        guidance_scale=guidance_scale,
        scheduler=SCHEDULER,
        width=width,
        height=height,
        negative_prompt=negative_prompt,
    )


def multi_seed_specs(row: ImageSpec, count: int) -> list[ImageSpec]:
    """`row`, and `count - 1` more specifications that differ in the seed only."""
    more = [seed_of("multi_seed", row.seed, number) for number in range(1, count)]
    return [row, *(replace(row, seed=seed) for seed in more)]


def prefix_steps(switch_step: int, s_reference: bool = False) -> int:
    """Number of steps under the original prompt.

    Args:
        s_reference: as the published code counts them, see `redenoising`.
    """
    return switch_step + 1 if s_reference and switch_step else switch_step


def denoiser_evaluations(row: ImageSpec, steps_done: int = 0) -> int:
    """Denoiser evaluations (NFE) that `row` takes after `steps_done` steps.

    >>> spec = initial_image_spec("a red ball", seed=0, position=0, batch_size=1)
    >>> denoiser_evaluations(spec, steps_done=4)
    48
    """
    return (row.steps - steps_done) * (2 if row.guidance_scale > 1 else 1)


def variant_evaluations(
    row: ImageSpec, switch_steps: Sequence[int] = SWITCH_STEPS, s_reference: bool = False
) -> int:
    """Denoiser evaluations of all variants of `row`, without those of the initial image.

    >>> variant_evaluations(initial_image_spec("a red ball", seed=0, position=0, batch_size=1))
    210
    """
    return sum(
        denoiser_evaluations(row, start_step(row, step, s_reference)) for step in switch_steps
    )


def affordable_images(row: ImageSpec, budget: int) -> int:
    """Number of plain images like `row` within a budget of denoiser evaluations; at least one."""
    return max(1, budget // denoiser_evaluations(row))


def start_step(row: ImageSpec, switch_step: int, s_reference: bool) -> int:
    """Number of steps that a variant shares with the initial image; 0 where it is a plain image."""
    done = prefix_steps(switch_step, s_reference)
    return done if done < row.steps else 0
