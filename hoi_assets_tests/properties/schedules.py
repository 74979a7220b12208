"""Re-denoising: the first s steps under the original prompt, the others under the corrected one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hoi_assets.engines.sd3.compute import denoiser_evaluations, initial_image_spec, start_step
from hoi_assets.engines.sd3.loading import LoadedSD3, load_sd3
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
)
from hoi_assets.settings import ModelRef
from hoi_assets_tests.properties.examples import for_all

PROMPT, CORRECTED = "a red ball", "a red ball, the hand has five fingers"


@for_all(st.integers(2, 200), st.integers(0, 250), st.booleans(), st.floats(0, 30))
def steps_add_up(steps: int, switch: int, s_reference: bool, guidance: float) -> None:
    row = initial_image_spec(PROMPT, 1, 0, 1, steps=steps, guidance_scale=guidance)
    shared = start_step(row, switch, s_reference)
    under_original = switch + 1 if s_reference and switch else switch
    assert shared == (under_original if under_original < steps else 0)
    per_step = denoiser_evaluations(row) // steps
    assert denoiser_evaluations(row, shared) == (steps - shared) * per_step
    assert per_step == (2 if guidance > 1 else 1)


@cache
def _loaded() -> LoadedSD3:
    from hoi_assets_tests.engines.small_sd3 import make_sd3

    folder = Path(tempfile.mkdtemp(prefix="hoi-sd3-"))
    make_sd3(folder / "sd3")
    return load_sd3(ModelRef(source=str(folder / "sd3")))


@contextmanager
def _watched(loaded: LoadedSD3) -> Iterator[list[tuple[float, bytes, bytes]]]:
    """Of each step: its time, and the embeddings, sequence and pooled, of the guided half."""
    seen: list[tuple[float, bytes, bytes]] = []

    def look(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        seen.append(
            (
                float(given["timestep"][0]),
                given["encoder_hidden_states"][-1].numpy().tobytes(),
                given["pooled_projections"][-1].numpy().tobytes(),
            )
        )

    hook = loaded.pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def _plain(loaded: LoadedSD3, prompt: str, steps: int) -> list[tuple[float, bytes, bytes]]:
    row = initial_image_spec(prompt, 7, 0, 1, steps, 4.5, 64, 64)
    with _watched(loaded) as seen:
        list(generate_initial_images(loaded, [row], 1))
    return seen


@for_all(st.integers(2, 7), st.integers(0, 8), st.booleans(), st.booleans())
def prompts_of_the_steps(steps: int, switch: int, s_reference: bool, kept: bool) -> None:
    """By what the denoiser is given, step by step.

    Args:
        kept: whether the latents of the initial image's run are at hand.
    """
    loaded = _loaded()
    under, corrected = _plain(loaded, PROMPT, steps), _plain(loaded, CORRECTED, steps)
    assert len(under) == len(corrected) == steps
    row = initial_image_spec(PROMPT, 7, 0, 1, steps, 4.5, 64, 64)
    (begun,) = generate_initial_images(loaded, [row], 1, (switch,) if kept else (), s_reference)
    with _watched(loaded) as seen:
        wanted = [Redenoising(row, CORRECTED, begun.latents)]
        (variant,) = generate_variants(loaded, wanted, 1, (switch,), s_reference)
    first = switch + 1 if s_reference and switch else switch
    shared = first if first < steps else 0
    computed = seen[-(steps - shared) :]
    expected = (under if first >= steps else corrected)[shared:]
    if s_reference and shared:
        # The published code leaves the pooled embedding as it was.
        pooled = under[0][2]
        expected = [(time, sequence, pooled) for time, sequence, _ in expected]
    assert computed == expected
    # A prefix that is not at hand is computed under the original prompt, and nothing else is.
    assert seen[: len(seen) - len(computed)] == ([] if kept or not shared else under[:shared])
    assert variant.image is not None or variant.reason
