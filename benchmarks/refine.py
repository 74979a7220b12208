"""All four switch steps by the platform against the published procedure: same weights, prompts,
steps and threads, one after the other in one process.

The published procedure, written with plain diffusers: an initial run, then one full run per switch
step, one image a call, prompts encoded in each.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import report, tiny
from hoi_assets.grammar.plans import SCENARIOS, make_plan
from hoi_assets.grammar.sentences import sentence, triples
from hoi_assets.settings import ModelRef
from hoi_assets.tinyworld.weights.store import WEIGHTS

STEPS, GUIDANCE, SIDE = 28, 4.5, 128
WARM_UP_STEPS = 5  # the first call is slower, whoever makes it
SWITCH_STEPS = (0, 1, 2, 4)
BATCH_SIZE = 4
PUBLISHED_PROMPTS = 2  # it takes the same time for each


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = _load(Path(folder) / "sd3")
    prompts = [_prompt(number) for number in range(BATCH_SIZE)]
    for draw in (draw_published, draw_ours):
        draw(loaded, prompts[:1], WARM_UP_STEPS)
    published = time_per_prompt(loaded, draw_published, prompts[:PUBLISHED_PROMPTS])
    ours = time_per_prompt(loaded, draw_ours, prompts)
    report(
        "refine/four switch steps against the published procedure",
        f"{ours[0] / published[0]:.2f} of its time ({ours[0]:.2f} and {published[0]:.2f} s, "
        f"{ours[1]:.0f} and {published[1]:.0f} denoiser evaluations (NFE) a "
        f"prompt, batch {BATCH_SIZE})",
        "at most 0.6",
    )


def _load(folder: Path) -> Any:
    """The stored weights; while there are none, random ones, which take the same time."""
    import torch

    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.sd3.loading import load_sd3
    from hoi_assets.tinyworld.weights.sd3 import build_pipeline
    from hoi_assets.tinyworld.weights.sdxl import save

    device = configure_torch(tiny())
    if (WEIGHTS / "sd3").is_dir():
        return load_sd3(ModelRef(source=str(WEIGHTS / "sd3")), device)
    torch.manual_seed(0)
    save(build_pipeline(), folder)
    return load_sd3(ModelRef(source=str(folder)), device)


def _prompt(number: int) -> tuple[str, str]:
    """A prompt, and the same with its first component asked for again."""
    plan = make_plan(SCENARIOS[number % len(SCENARIOS)], number)
    first = triples(plan)[0]
    return sentence(plan), f"{sentence(plan)}, {first.subject} {first.relation} {first.object}"


def time_per_prompt(loaded: Any, draw: Any, prompts: list[tuple[str, str]]) -> tuple[float, float]:
    """Seconds and denoiser evaluations a prompt, as the transformer itself counts them."""
    with _counted(loaded.pipe.transformer) as sizes:
        start = time.perf_counter()
        draw(loaded, prompts)
        seconds = time.perf_counter() - start
    return seconds / len(prompts), sum(sizes) / len(prompts)


@contextmanager
def _counted(transformer: Any) -> Iterator[list[int]]:
    sizes: list[int] = []

    def count(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        sizes.append(len(named["hidden_states"]))

    hook = transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


def draw_ours(
    loaded: Any, prompts: list[tuple[str, str]], steps: int = STEPS, side: int = SIDE
) -> None:
    """Initial images and their variants, all prompts in one batch."""
    from hoi_assets.engines.sd3.compute import initial_image_spec
    from hoi_assets.engines.sd3.redenoising import (
        Redenoising,
        generate_initial_images,
        generate_variants,
    )

    rows = [
        initial_image_spec(prompt, number, number, BATCH_SIZE, steps, GUIDANCE, side, side)
        for number, (prompt, _) in enumerate(prompts)
    ]
    begun = generate_initial_images(loaded, rows, BATCH_SIZE, SWITCH_STEPS)
    wanted = [
        Redenoising(one.row, corrected, one.latents)
        for one, (_, corrected) in zip(begun, prompts, strict=True)
    ]
    drawn = sum(1 for _ in generate_variants(loaded, wanted, BATCH_SIZE, SWITCH_STEPS))
    if drawn != len(prompts) * len(SWITCH_STEPS):
        raise SystemExit(f"{drawn} variants of {len(prompts)} prompts")


def draw_published(
    loaded: Any, prompts: list[tuple[str, str]], steps: int = STEPS, side: int = SIDE
) -> None:
    """As the published code: the callback of step s switches to the corrected prompt."""
    import torch

    pipe = loaded.pipe
    length = loaded.max_sequence_length
    for number, (prompt, corrected) in enumerate(prompts):
        for step in (None, *SWITCH_STEPS):

            def switch(
                pipe: Any,
                index: int,
                timestep: Any,
                tensors: dict[str, Any],
                step: int | None = step,
                corrected: str = corrected,
            ) -> dict[str, Any]:
                if index == step:
                    embeds, negative, _, _ = pipe.encode_prompt(
                        corrected, None, None, max_sequence_length=length
                    )
                    tensors["prompt_embeds"] = torch.cat([negative, embeds])
                return tensors

            pipe(
                corrected if step == 0 else prompt,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                max_sequence_length=length,
                width=side,
                height=side,
                generator=torch.Generator().manual_seed(number),
                callback_on_step_end=switch if step else None,
                callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
            )


if __name__ == "__main__":
    main()
