"""Re-denoising against runs of plain diffusers at the same batch shape, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hoi_assets.engines.diffusion_pipeline import prompt_embeddings, tensor_to_images
from hoi_assets.engines.image_spec import ImageSpec, Lora, image_key
from hoi_assets.engines.sd3.compute import (
    ComputeCost,
    affordable_images,
    denoiser_evaluations,
    initial_image_spec,
    multi_seed_specs,
    variant_evaluations,
)
from hoi_assets.engines.sd3.loading import LoadedSD3, load_sd3
from hoi_assets.engines.sd3.redenoising import (
    InitialImage,
    Redenoising,
    VariantImage,
    generate_initial_images,
    generate_variants,
    variant_key,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.small_sd3 import make_sd3

BATCH, STEPS = 4, 6
SWITCH_STEPS = (0, 1, 2, 4)
PROMPTS = ("a red ball", "a left hand holds a blue mug", "a green pen on a grey wall")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedSD3:
    folder = tmp_path_factory.mktemp("models") / "sd3"
    make_sd3(folder)
    return load_sd3(ModelRef(source=str(folder)))


def rows(count: int = 3, guidance_scale: float = 4.5) -> list[ImageSpec]:
    return [
        initial_image_spec(
            PROMPTS[number % 3], 100 + number, number, BATCH, STEPS, guidance_scale, 64, 64
        )
        for number in range(count)
    ]


def corrected(row: ImageSpec) -> str:
    return f"{row.prompt}, the hand has five fingers"


def initial(loaded: LoadedSD3, drawn: list[ImageSpec], **options: Any) -> list[InitialImage]:
    return list(generate_initial_images(loaded, drawn, BATCH, **options))


def refined(
    loaded: LoadedSD3,
    drawn: list[ImageSpec],
    *steps: int,
    given: bool = True,
    s_reference: bool = False,
) -> list[VariantImage]:
    """Variants of `drawn`, branched off the initial run (or off steps computed again)."""
    begun = generate_initial_images(loaded, drawn, BATCH, steps if given else (), s_reference)
    wanted = [Redenoising(one.row, corrected(one.row), one.latents) for one in begun]
    return list(generate_variants(loaded, wanted, BATCH, steps, s_reference))


def by_hand(
    loaded: LoadedSD3, drawn: list[ImageSpec], after: int, swap_pooled: bool = True
) -> list[bytes]:
    """One plain run per batch that switches to the corrected prompts in the callback of step
    `after`; nothing of it is shared."""

    def embeds(texts: list[str | None]) -> dict[str, Any]:
        return prompt_embeddings(
            loaded, texts, ["" if text else None for text in texts], guided=True
        )

    texts: list[str | None] = [row.prompt for row in drawn]
    texts += [None] * (BATCH - len(drawn))
    others = embeds([text and f"{text}, the hand has five fingers" for text in texts])

    def switch(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index != after:
            return tensors
        names = ["prompt_embeds", "pooled_prompt_embeds"][: 2 if swap_pooled else 1]
        return tensors | {n: torch.cat([others[f"negative_{n}"], others[n]]) for n in names}

    seeds = [row.seed for row in drawn] + [0] * (BATCH - len(drawn))
    images = loaded.pipe(
        **embeds(texts),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=STEPS,
        guidance_scale=4.5,
        width=64,
        height=64,
        callback_on_step_end=switch,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds", "pooled_prompt_embeds"],
        output_type="pt",
    ).images
    return [image.tobytes() for image in tensor_to_images(images)[: len(drawn)] if image]


def pixels(results: list[InitialImage] | list[VariantImage]) -> list[bytes]:
    assert all(one.reason is None for one in results)
    return [one.image.tobytes() for one in results if one.image]


@contextmanager
def counted(loaded: LoadedSD3) -> Iterator[list[int]]:
    """Sizes of the batches that the transformer gets."""
    sizes: list[int] = []

    def count(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        sizes.append(len(named["hidden_states"]))

    hook = loaded.pipe.transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


def test_switch_step_0_is_a_plain_run_under_the_corrected_prompt(loaded: LoadedSD3) -> None:
    plain = [replace(row, prompt=corrected(row)) for row in rows()]
    assert pixels(refined(loaded, rows(), 0)) == pixels(initial(loaded, plain))


@pytest.mark.parametrize("step", [STEPS, STEPS + 3])
def test_switch_after_all_steps_is_the_initial_picture(loaded: LoadedSD3, step: int) -> None:
    assert pixels(refined(loaded, rows(), step)) == pixels(initial(loaded, rows()))


@pytest.mark.parametrize("given", [True, False], ids=["branched", "prefix computed again"])
@pytest.mark.parametrize("step", [1, 2, 4, STEPS - 1])
def test_shared_prefix_equals_a_run_of_its_own_that_switches(
    loaded: LoadedSD3, step: int, given: bool
) -> None:
    found = pixels(refined(loaded, rows(), step, given=given))
    assert found == by_hand(loaded, rows(), after=step - 1)
    assert found != pixels(initial(loaded, rows()))


def test_all_switch_steps_in_one_call_equal_each_alone(loaded: LoadedSD3) -> None:
    together = refined(loaded, rows(), *SWITCH_STEPS)
    assert [one.switch_step for one in together] == [s for s in SWITCH_STEPS for _ in rows()]
    for step in SWITCH_STEPS:
        same = [one for one in together if one.switch_step == step]
        assert pixels(same) == pixels(refined(loaded, rows(), step))
    assert len(set(pixels(together))) == len(together)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_s_reference_is_a_callback_at_that_step_which_leaves_the_pooled_embedding(
    loaded: LoadedSD3, step: int
) -> None:
    found = pixels(refined(loaded, rows(), step, s_reference=True))
    assert found == by_hand(loaded, rows(), after=step, swap_pooled=False)
    assert found != by_hand(loaded, rows(), after=step)


def test_s_reference_0_is_a_plain_run_as_published(loaded: LoadedSD3) -> None:
    plain = [replace(row, prompt=corrected(row)) for row in rows()]
    assert pixels(refined(loaded, rows(), 0, s_reference=True)) == pixels(initial(loaded, plain))


def test_neighbours_do_not_matter(loaded: LoadedSD3) -> None:
    together = refined(loaded, rows(7), *SWITCH_STEPS)
    assert len(together) == 7 * len(SWITCH_STEPS)
    for number in (0, 2, 5):
        row = rows(7)[number]
        own = [one for one in together if one.redenoising.row == row]
        assert pixels(own) == pixels(refined(loaded, [row], *SWITCH_STEPS))


def test_initial_picture_is_the_one_that_plain_diffusers_draws(loaded: LoadedSD3) -> None:
    scheduler = loaded.pipe.scheduler
    assert pixels(initial(loaded, rows())) == by_hand(loaded, rows(), after=STEPS)
    assert loaded.pipe.scheduler is scheduler


def test_kept_latents_do_not_change_the_initial_picture(loaded: LoadedSD3) -> None:
    kept = initial(loaded, rows(), switch_steps=SWITCH_STEPS)
    assert pixels(kept) == pixels(initial(loaded, rows()))
    assert [sorted(one.latents) for one in kept] == [[1, 2, 4]] * 3
    assert kept[0].latents[1].shape == (4, 8, 8)
    again = initial(loaded, rows(), switch_steps=(2,), s_reference=True)
    assert sorted(again[0].latents) == [3]


def test_a_prompt_is_encoded_once(loaded: LoadedSD3) -> None:
    loaded._embeddings.clear()
    calls: list[str] = []
    encoder = loaded.pipe.text_encoder
    hook = encoder.register_forward_pre_hook(lambda *_: calls.append("text"))
    try:
        refined(loaded, rows(7), *SWITCH_STEPS)
    finally:
        hook.remove()
    assert len(calls) == 2 * len(PROMPTS) + 1  # the prompts, their corrections, the empty text


@pytest.mark.parametrize("guidance_scale", [4.5, 1.0])
@pytest.mark.parametrize("s_reference", [False, True])
@pytest.mark.parametrize("given", [True, False])
def test_claimed_passes_are_those_that_the_transformer_runs(
    loaded: LoadedSD3, guidance_scale: float, s_reference: bool, given: bool
) -> None:
    drawn = rows(BATCH, guidance_scale)
    with counted(loaded) as first:
        begun = initial(
            loaded, drawn, switch_steps=SWITCH_STEPS if given else (), s_reference=s_reference
        )
    assert (
        sum(first)
        == sum(one.compute.denoiser_evaluations for one in begun)
        == BATCH * denoiser_evaluations(drawn[0])
    )
    wanted = [Redenoising(one.row, corrected(one.row), one.latents) for one in begun]
    with counted(loaded) as later:
        variants = list(generate_variants(loaded, wanted, BATCH, SWITCH_STEPS, s_reference))
    assert sum(later) == sum(one.compute.denoiser_evaluations for one in variants)
    planned = BATCH * variant_evaluations(drawn[0], SWITCH_STEPS, s_reference)
    again = 0 if given else BATCH * (5 if s_reference else 4) * (2 if guidance_scale > 1 else 1)
    assert sum(later) == planned + again
    assert all(one.compute.seconds > 0 for one in [*begun, *variants])


def test_published_setting_costs_210_passes_beside_the_initial_56() -> None:
    row = initial_image_spec("a red ball", 0, 0, 1)
    assert (denoiser_evaluations(row), variant_evaluations(row)) == (56, 210)
    assert affordable_images(row, 56 + 210) == 4
    assert affordable_images(row, 1) == 1
    assert ComputeCost(1, 0.5) + ComputeCost(2, 0.25) == ComputeCost(3, 0.75)


def test_multi_seed_begins_with_the_row_and_keeps_its_slot() -> None:
    row = rows()[1]
    many = multi_seed_specs(row, 4)
    assert many[0] == row
    assert len({one.seed for one in many}) == 4
    assert {replace(one, seed=row.seed) for one in many} == {row}
    assert multi_seed_specs(row, 2) == many[:2]


def test_key_of_a_variant_that_is_a_plain_picture_is_that_pictures(loaded: LoadedSD3) -> None:
    one = Redenoising(rows()[0], "a blue ball")
    base = loaded.digest
    assert variant_key(one, 0, False, base) == image_key(
        replace(one.row, prompt="a blue ball"), base
    )
    assert variant_key(one, STEPS, False, base) == image_key(one.row, base)
    assert variant_key(one, STEPS - 1, True, base) == image_key(one.row, base)
    keys = [
        variant_key(one, 2, False, base),
        variant_key(one, 1, True, base),
        variant_key(one, 2, True, base),
        variant_key(replace(one, corrected_prompt="a blue mug"), 2, False, base),
        variant_key(replace(one, row=replace(one.row, seed=1)), 2, False, base),
        variant_key(one, 2, False, "other"),
    ]
    assert len(set(keys)) == len(keys)
    moved = replace(one, row=replace(one.row, slot=3), latents={1: None})
    assert variant_key(moved, 2, False, base) == keys[0]


def test_picture_of_nan_fails_its_row_with_a_reason(loaded: LoadedSD3) -> None:
    broken = load_sd3(loaded.ref)
    embeds, pooled = broken.encode("broken")
    broken._embeddings["", "broken"] = (embeds * float("nan"), pooled)
    drawn = rows()
    wanted = [Redenoising(drawn[0], "broken"), Redenoising(drawn[1], "a red ball")]
    first, second = generate_variants(broken, wanted, BATCH, (1,))
    assert first.image is None and "not_finite" in (first.reason or "")
    assert second.image is not None and second.reason is None


def test_row_that_cannot_be_drawn_stops_before_work(loaded: LoadedSD3) -> None:
    row = rows()[0]
    for broken, words in (
        (replace(row, slot=5), "slot 5"),
        (replace(row, width=72), "multiple of 16"),
        (replace(row, width=256), "beyond the model's 128"),
        (replace(row, scheduler="euler"), "unknown scheduler 'euler'"),
        (replace(row, lora=Lora("here", "d")), "LoRA"),
    ):
        with pytest.raises(HoiError, match=words):
            generate_initial_images(loaded, [broken], BATCH)
        with pytest.raises(HoiError, match=words):
            generate_variants(loaded, [Redenoising(broken, "a mug")], BATCH)
    with pytest.raises(HoiError, match="switch steps"):
        generate_variants(loaded, [Redenoising(row, "a mug")], BATCH, (-1,))


def test_nothing_to_refine_draws_nothing(loaded: LoadedSD3) -> None:
    with counted(loaded) as sizes:
        assert list(generate_variants(loaded, [], BATCH)) == []
    assert sizes == []


def test_latents_survive_being_stored(loaded: LoadedSD3, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (one,) = initial(loaded, rows(1), switch_steps=(2,))
    save_file({"after_2_steps": one.latents[2]}, tmp_path / "latents.safetensors")
    stored = {2: load_file(tmp_path / "latents.safetensors")["after_2_steps"]}
    wanted = Redenoising(one.row, corrected(one.row), stored)
    assert pixels(list(generate_variants(loaded, [wanted], BATCH, (2,)))) == pixels(
        refined(loaded, rows(1), 2)
    )
