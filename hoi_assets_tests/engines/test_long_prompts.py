"""Promises about prompts that are longer than CLIP reads, and about the text encoders' padding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from hoi_assets.engines.diffusion_pipeline import tensor_to_images
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import LoadedSD3, load_sd3, sd3_text_reader
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
)
from hoi_assets.engines.sdxl.img2img import renoise
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl, sdxl_text_reader
from hoi_assets.engines.sdxl.lora import train_dreambooth_lora
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.settings import LoraTraining, ModelRef, Models, Sampling
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import picture

BATCH = 4
# The small tokenizers read 32 tokens, one a letter: seven of these words fit beside two specials.
WORDS = [f"{letter * 4}" for letter in "abcdefghijklmnop"]
LONG = " ".join(WORDS)
PIECES = [" ".join(WORDS[:7]), " ".join(WORDS[7:14]), " ".join(WORDS[14:])]


@pytest.fixture(scope="module")
def chunking(sdxl_folder: Path) -> LoadedSDXL:
    return load_sdxl(ModelRef(source=str(sdxl_folder), long_prompts="chunk"))


@pytest.fixture(scope="module")
def sd3_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    plain, with_t5 = (tmp_path_factory.mktemp("sd3") / name for name in ("plain", "t5"))
    make_sd3(plain)
    make_sd3(with_t5, with_t5=True)
    return plain, with_t5


def test_a_long_prompt_is_encoded_chunk_by_chunk_between_words(chunking: LoadedSDXL) -> None:
    embeds, pooled = chunking.encode(LONG)
    with torch.no_grad():
        plain = [
            chunking.pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)
            for text in PIECES
        ]
    assert torch.equal(embeds, torch.cat([piece[0] for piece in plain], dim=1))
    # The pooled embedding is the pipeline's own, of the prompt's beginning.
    own = chunking.pipe.encode_prompt(LONG, device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(pooled, own[2])


def test_a_prompt_that_fits_has_the_same_bits_chunked_and_cut(
    chunking: LoadedSDXL, loaded: LoadedSDXL, sampling: Sampling
) -> None:
    rows = [make_image_spec(sampling, PIECES[n], n, n) for n in range(3)]
    drawn = [
        [one.image.tobytes() for one in generate_images(model, rows, BATCH) if one.image]
        for model in (chunking, loaded)
    ]
    assert len(drawn[0]) == 3 and drawn[0] == drawn[1]


def _drawn(model: LoadedSDXL, rows: list[ImageSpec]) -> dict[int, bytes]:
    return {
        one.row.seed: one.image.tobytes()
        for one in generate_images(model, rows, BATCH)
        if one.image
    }


def test_the_end_of_a_long_prompt_is_drawn_only_in_chunks(
    chunking: LoadedSDXL, loaded: LoadedSDXL, sampling: Sampling
) -> None:
    other_end = LONG[:-4] + "zzzz"
    for model, same in ((chunking, False), (loaded, True)):
        first, second = (
            _drawn(model, [make_image_spec(sampling, text, 5, 0)]) for text in (LONG, other_end)
        )
        assert (first == second) is same


def test_a_picture_does_not_depend_on_the_length_of_its_neighbours_prompts(
    chunking: LoadedSDXL, sampling: Sampling
) -> None:
    texts = [LONG, PIECES[0], " ".join(PIECES[:2]), PIECES[1]]
    avoid = ["", LONG, "", ""]
    rows = [make_image_spec(sampling, texts[n], n, n, avoid=avoid[n]) for n in range(4)]
    together = _drawn(chunking, rows)
    assert len(together) == 4
    for row in rows:
        assert _drawn(chunking, [row]) == {row.seed: together[row.seed]}


def test_renoised_pictures_come_in_order_whatever_the_length_of_their_captions(
    chunking: LoadedSDXL, sampling: Sampling
) -> None:
    images = [picture(colour) for colour in ("red", "green", "blue")]
    texts, seeds = [LONG, PIECES[0], LONG], [1, 2, 3]
    together = [i.tobytes() for i in renoise(chunking, images, texts, seeds, 0.7, sampling, BATCH)]
    for place in range(3):
        some = slice(place, place + 1)
        (alone,) = renoise(chunking, images[some], texts[some], seeds[some], 0.7, sampling, BATCH)
        assert alone.tobytes() == together[place]


def test_a_lora_is_trained_on_captions_of_different_lengths(
    chunking: LoadedSDXL, tmp_path: Path
) -> None:
    config = LoraTraining(max_train_steps=2, train_batch_size=2, rank=2, lora_alpha=2)
    pairs = [(picture("red"), LONG), (picture("blue"), PIECES[0])]
    classes = [(picture("green"), " ".join(PIECES[:2]))] * 2
    done = train_dreambooth_lora(
        chunking, pairs, classes, config, tmp_path / "work", tmp_path / "lora", lambda line: None
    )
    assert len(done.log) == 2
    chunking.unload_adapters()


def test_counting_says_what_is_read_in_chunks(sdxl_folder: Path) -> None:
    cut = ModelRef(source=str(sdxl_folder))
    chunk = cut.model_copy(update={"long_prompts": "chunk"})
    limits = [{one.limit for one in sdxl_text_reader(ref).load()} for ref in (cut, chunk)]
    assert limits == [{32}, {8 * 30 + 2}]


def test_how_prompts_are_read_is_part_of_the_digest_only_where_it_is_set(sdxl_folder: Path) -> None:
    plain = ModelRef(source=str(sdxl_folder))
    told = [
        plain.model_copy(update={"long_prompts": "cut", "max_sequence_length": None}),
        plain.model_copy(update={"long_prompts": "chunk"}),
        plain.model_copy(update={"max_sequence_length": 256}),
    ]
    digests = [model_digest(ref) for ref in told]
    assert digests[0] == model_digest(plain)
    assert len(set(digests)) == 3


def test_options_of_diffusion_models_are_refused_elsewhere() -> None:
    plain = {"source": "x"}
    models = dict.fromkeys(("base", "verifier", "clip", "image_reward", "benchmark"), plain)
    Models.model_validate(models | {"base": plain | {"long_prompts": "chunk"}})
    with pytest.raises(ValidationError, match="clip: long_prompts is an option of base and"):
        Models.model_validate(models | {"clip": plain | {"long_prompts": "chunk"}})
    with pytest.raises(ValidationError, match="max_sequence_length is an option of benchmark only"):
        Models.model_validate(models | {"base": plain | {"max_sequence_length": 9}})


@pytest.mark.parametrize("with_t5", [False, True])
def test_pictures_equal_those_of_plain_diffusers_at_its_own_sequence_length(
    sd3_folders: tuple[Path, Path], with_t5: bool
) -> None:
    from diffusers import StableDiffusion3Pipeline

    folder = sd3_folders[with_t5]
    loaded = load_sd3(ModelRef(source=str(folder), max_sequence_length=256))
    texts = ("a red ball", "a blue mug")
    rows = [initial_image_spec(texts[n], n, n, 2, 3, 4.5, 64, 64) for n in range(2)]
    drawn = [one.image.tobytes() for one in generate_initial_images(loaded, rows, 2) if one.image]
    absent = {} if with_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    plain = StableDiffusion3Pipeline.from_pretrained(folder, **absent)
    plain.set_progress_bar_config(disable=True)
    wanted = plain(
        list(texts),
        num_inference_steps=3,
        guidance_scale=4.5,
        width=64,
        height=64,
        generator=[torch.Generator().manual_seed(n) for n in range(2)],
        output_type="pt",
    ).images
    pictures = [image for image in tensor_to_images(wanted) if image]
    differences = [
        max(abs(a - b) for a, b in zip(mine, other.tobytes(), strict=True))
        for mine, other in zip(drawn, pictures, strict=True)
    ]
    # Texts are encoded one by one here and as a batch there.
    assert len(differences) == 2 and max(differences) <= 1
    without = load_sd3(ModelRef(source=str(folder)))
    assert without.max_sequence_length == (512 if with_t5 else 1)


@pytest.mark.parametrize("with_t5", [False, True])
def test_stable_diffusion_3_redenoises_between_prompts_of_different_lengths(
    sd3_folders: tuple[Path, Path], with_t5: bool
) -> None:
    ref = ModelRef(source=str(sd3_folders[with_t5]), long_prompts="chunk", max_sequence_length=8)
    loaded: LoadedSD3 = load_sd3(ref)
    assert loaded.encode(LONG)[0].shape[1] == 3 * 32 + 8
    assert loaded.encode(PIECES[0])[0].shape[1] == 32 + 8
    rows = [
        initial_image_spec(text, n, n, 2, 3, 4.5, 64, 64)
        for n, text in enumerate((PIECES[0], LONG))
    ]
    first = {one.row.seed: one for one in generate_initial_images(loaded, rows, 2, (1,))}
    again = [Redenoising(row, f"{row.prompt} {LONG}", first[row.seed].latents) for row in rows]
    variants = list(generate_variants(loaded, again, 2, (1,)))
    assert {one.redenoising.row.seed for one in variants} == {0, 1}
    for one in variants:
        (alone,) = generate_variants(loaded, [replace(one.redenoising, latents={})], 2, (1,))
        assert alone.image is not None and one.image is not None
        assert alone.image.tobytes() == one.image.tobytes()
    limits = {one.name: one.limit for one in sd3_text_reader(ref).load()}
    assert limits["text_encoder"] == 8 * 30 + 2
    assert limits.get("text_encoder_3") == (8 if with_t5 else None)
