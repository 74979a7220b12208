from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hoi_assets.engines.image_spec import ImageSpec, Lora, batches_by_slot, image_key
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import (
    activate_lora,
    generate_images,
    lora_digest,
    make_image_spec,
    make_scheduler,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Sampling
from hoi_assets_tests.engines.small_sdxl import PROMPTS, make_sdxl, random_lora

BATCH = 4


def rows_of(sampling: Sampling, count: int, lora: Lora | None = None) -> list[ImageSpec]:
    return [
        make_image_spec(sampling, PROMPTS[i % len(PROMPTS)], seed=100 + i, position=i, lora=lora)
        for i in range(count)
    ]


def pictures(loaded: LoadedSDXL, rows: list[ImageSpec]) -> dict[int, bytes]:
    drawn = list(generate_images(loaded, rows, BATCH))
    assert all(one.reason is None for one in drawn)
    return {one.row.seed: one.image.tobytes() for one in drawn if one.image}


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m"])
def test_any_picture_drawn_again_alone_has_the_same_pixels(
    loaded: LoadedSDXL, sampling: Sampling, scheduler: str
) -> None:
    rows = rows_of(sampling.model_copy(update={"scheduler": scheduler}), 6)
    together = pictures(loaded, rows)
    assert len(set(together.values())) == 6
    for row in rows:
        assert pictures(loaded, [row]) == {row.seed: together[row.seed]}


def test_rows_left_over_after_an_interruption_keep_their_pixels(
    loaded: LoadedSDXL, sampling: Sampling
) -> None:
    rows = rows_of(sampling, 11)
    together = pictures(loaded, rows)
    left = [rows[i] for i in (1, 2, 5, 8, 9, 10)]
    assert pictures(loaded, left) == {row.seed: together[row.seed] for row in left}


def test_rows_come_back_batch_by_batch(loaded: LoadedSDXL, sampling: Sampling) -> None:
    stream = generate_images(loaded, rows_of(sampling, 6), BATCH)
    assert next(stream).row.slot == 0
    assert [one.row.slot for one in stream] == [1, 2, 3, 0, 1]


def test_batches_hold_one_row_per_slot_and_zip_what_is_missing(sampling: Sampling) -> None:
    rows = rows_of(sampling, 9)
    assert [list(batch) for batch in batches_by_slot(rows, BATCH)] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0],
    ]
    left = [rows[i] for i in (0, 4, 5, 3, 8)]
    assert list(batches_by_slot(left, BATCH)) == [
        {0: rows[0], 1: rows[5], 3: rows[3]},
        {0: rows[4]},
        {0: rows[8]},
    ]


def test_picture_is_the_one_that_plain_diffusers_draws(
    loaded: LoadedSDXL, sampling: Sampling
) -> None:
    row = make_image_spec(sampling, PROMPTS[1], seed=7, position=0)
    own = loaded.pipe.scheduler
    ours = next(generate_images(loaded, [row], 1)).image
    assert loaded.pipe.scheduler is own
    loaded.pipe.scheduler = make_scheduler(loaded, "dpmpp_2m")
    plain = loaded.pipe(
        row.prompt,
        num_inference_steps=row.steps,
        guidance_scale=row.guidance_scale,
        width=64,
        height=64,
        generator=[torch.Generator().manual_seed(7)],
    ).images[0]
    loaded.pipe.scheduler = own
    assert ours is not None and ours.tobytes() == plain.tobytes()


def test_negative_prompt_and_guidance_change_the_picture(
    loaded: LoadedSDXL, sampling: Sampling
) -> None:
    row = make_image_spec(sampling, PROMPTS[0], seed=1, position=0)
    variants = [row, replace(row, negative_prompt="blurred"), replace(row, guidance_scale=1.0)]
    assert (
        len({next(generate_images(loaded, [one], BATCH)).image.tobytes() for one in variants}) == 3
    )


def test_lora_changes_the_picture_and_the_base_comes_back_bit_for_bit(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    base = pictures(loaded, rows_of(sampling, 4))
    loras = [random_lora(loaded, tmp_path / str(i), seed=i) for i in range(2)]
    first, second = (pictures(loaded, rows_of(sampling, 4, lora)) for lora in loras)
    assert first != second != base
    assert pictures(loaded, rows_of(sampling, 4)) == base
    assert pictures(loaded, rows_of(sampling, 4, loras[0])) == first
    loaded.unload_adapters()
    assert pictures(loaded, rows_of(sampling, 4)) == base
    assert pictures(loaded, rows_of(sampling, 4, loras[1])) == second


def test_rows_of_several_loras_are_drawn_in_one_call(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    lora = random_lora(loaded, tmp_path / "lora", seed=3)
    rows = rows_of(sampling, 3) + [
        replace(r, seed=r.seed + 50, lora=lora) for r in rows_of(sampling, 3)
    ]
    mixed = pictures(loaded, rows)
    assert mixed == pictures(loaded, rows[:3]) | pictures(loaded, rows[3:])


def test_lora_stays_in_memory(loaded: LoadedSDXL, tmp_path: Path) -> None:
    lora = random_lora(loaded, tmp_path / "lora", seed=1)
    activate_lora(loaded, lora)
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").unlink()
    activate_lora(loaded, None)
    activate_lora(loaded, lora)
    assert list(loaded.adapters) == [lora.digest]


def test_lora_file_other_than_the_named_one_is_refused(loaded: LoadedSDXL, tmp_path: Path) -> None:
    lora = random_lora(loaded, tmp_path / "lora", seed=1)
    with pytest.raises(HoiError, match="is wanted"):
        activate_lora(loaded, replace(lora, digest="0" * 64))
    with pytest.raises(HoiError, match="LoRA file missing"):
        lora_digest(tmp_path)


def test_key_holds_what_determines_the_picture_and_not_the_place(sampling: Sampling) -> None:
    row = make_image_spec(sampling, PROMPTS[0], seed=1, position=0)
    key = image_key(row, "base")
    assert image_key(replace(row, slot=3), "base") == key
    assert image_key(replace(row, guidance_scale=4), "base") == key
    assert image_key(replace(row, lora=Lora("here", "d")), "base") == image_key(
        replace(row, lora=Lora("there", "d")), "base"
    )
    others = [
        replace(row, prompt="other"),
        replace(row, seed=2),
        replace(row, steps=4),
        replace(row, guidance_scale=5.0),
        replace(row, scheduler="euler"),
        replace(row, width=128),
        replace(row, negative_prompt="x"),
        replace(row, lora=Lora("here", "d")),
    ]
    assert len({key, image_key(row, "other"), *[image_key(o, "base") for o in others]}) == 10


def test_environment_states_what_bits_depend_on(loaded: LoadedSDXL) -> None:
    stated = loaded.environment(16)
    assert stated["batch_size"] == 16
    assert stated["dtype"] == "float32"
    assert stated["threads"] == torch.get_num_threads()
    assert stated["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_row_that_cannot_be_drawn_stops_before_work(loaded: LoadedSDXL, sampling: Sampling) -> None:
    row = make_image_spec(sampling, PROMPTS[0], seed=1, position=0)
    with pytest.raises(HoiError, match="slot 5"):
        generate_images(loaded, [replace(row, slot=5)], BATCH)
    with pytest.raises(HoiError, match="multiple of 8"):
        generate_images(loaded, [replace(row, width=60)], BATCH)
    with pytest.raises(HoiError, match="unknown scheduler 'ddim'"):
        generate_images(loaded, [replace(row, scheduler="ddim")], BATCH)


def test_picture_of_nan_fails_its_row_with_a_reason(sampling: Sampling, tmp_path: Path) -> None:
    make_sdxl(tmp_path, seed=1)
    broken = load_sdxl(ModelRef(source=str(tmp_path)))
    embeds, pooled = broken.encode("broken")
    broken._embeddings["", "broken"] = (embeds * float("nan"), pooled)
    rows = [
        make_image_spec(sampling, prompt, seed=i, position=i)
        for i, prompt in enumerate(["a red ball", "broken", "a pen"])
    ]
    drawn = {one.row.prompt: one for one in generate_images(broken, rows, BATCH)}
    assert drawn["broken"].image is None
    assert "not_finite" in (drawn["broken"].reason or "")
    assert isinstance(drawn["a red ball"].image, Image.Image)
    assert isinstance(drawn["a pen"].image, Image.Image)


def test_a_prompt_is_encoded_once_and_not_with_every_batch(
    loaded: LoadedSDXL, sampling: Sampling
) -> None:
    dark = sampling.model_copy(update={"negative_prompt": "dark"})
    rows = [make_image_spec(dark, PROMPTS[n % 2], n, n) for n in range(10)]
    loaded._embeddings.clear()
    calls: list[str] = []
    hooks = [
        encoder.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, encoder in (
            ("first", loaded.pipe.text_encoder),
            ("second", loaded.pipe.text_encoder_2),
        )
    ]
    try:
        assert len(list(generate_images(loaded, rows, 4))) == 10
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(calls) == ["first"] * 3 + ["second"] * 3  # two prompts and the negative one


def test_no_rows_draw_nothing(loaded: LoadedSDXL) -> None:
    assert list(generate_images(loaded, [], BATCH)) == []
