"""The tiny Stable Diffusion 3: its words, its parts, and what its training reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS, make_plan
from hoi_assets.grammar.sentences import parse, sentence, triples
from hoi_assets.tinyworld.weights import sd3, sdxl
from hoi_assets.tinyworld.weights.pictures import Pictures
from hoi_assets.tinyworld.weights.recipes import RECIPES
from hoi_assets.tinyworld.weights.words import words_of
from hoi_assets_tests.tinyworld.weights.shapes import write_shapes

PROMPTS = ("a left hand holds a red spoon", "a right hand holds a blue bowl")
MB = 1e6


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.manual_seed(0)
    return sd3.build_pipeline()


def plain(folder: Path) -> Any:
    from diffusers import StableDiffusion3Pipeline

    found = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    found.set_progress_bar_config(disable=True)
    return found


def interaction(seed: int, scenario: str = "functional", **changes: Any) -> dict[str, Any]:
    return {
        "caption": sentence(make_plan(scenario, seed)),
        "seed": seed,
        "alignment": True,
    } | changes


def test_every_word_of_the_interactions_is_one_token(pipeline: Any) -> None:
    said = {sentence(make_plan(scenario, n)) for scenario in SCENARIOS for n in range(300)}
    for word in {word for text in said for word in words_of(text)}:
        assert len(pipeline.tokenizer.tokenize(word)) == 1, word
    assert pipeline.tokenizer.get_vocab() == pipeline.tokenizer_2.get_vocab()


def test_a_prompt_with_every_correction_is_read_whole(pipeline: Any) -> None:
    longest = 0
    for scenario in SCENARIOS:
        for seed in range(300):
            plan = make_plan(scenario, seed)
            parts = [f"{t.subject} {t.relation} {t.object}" for t in triples(plan)]
            ids = pipeline.tokenizer(", ".join([sentence(plan), *parts]))["input_ids"]
            longest = max(longest, len(ids))
    assert 48 < longest <= sd3.MAX_LENGTH


def test_fresh_weights_load_plainly_and_draw_what_their_seed_says(fresh_weights: Path) -> None:
    found = plain(fresh_weights / "sd3")
    drawn = [
        found(
            PROMPTS[0],
            num_inference_steps=2,
            max_sequence_length=1,
            generator=torch.Generator().manual_seed(7),
        ).images[0]
        for _ in range(2)
    ]
    assert drawn[0].size == (128, 128)
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(drawn[1]))


def test_the_platform_loads_it(fresh_weights: Path) -> None:
    from hoi_assets.engines.sd3.loading import load_sd3
    from hoi_assets.settings import ModelRef

    loaded = load_sd3(ModelRef(source=str(fresh_weights / "sd3")))
    assert loaded.resolution == 128
    first, second = (loaded.encode(prompt)[1] for prompt in PROMPTS)
    assert (first - second).abs().max() > 1e-3


def test_stored_folder_is_small(fresh_weights: Path) -> None:
    sizes = [path.stat().st_size for path in (fresh_weights / "sd3").rglob("*") if path.is_file()]
    assert sum(sizes) < 16 * MB


def test_training_encodes_text_as_the_pipeline_does(pipeline: Any) -> None:
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    with torch.inference_mode():
        wanted, _, pooled, _ = pipeline.encode_prompt(
            list(PROMPTS), None, None, do_classifier_free_guidance=False, max_sequence_length=1
        )
        ids = [
            token_ids(tokenizer, PROMPTS, sd3.MAX_LENGTH)[0]
            for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
        ]
        found, found_pooled = sd3.encode_text(pipeline.text_encoder, pipeline.text_encoder_2, *ids)
    assert torch.equal(found, wanted)
    assert torch.equal(found_pooled, pooled)


def test_stored_weights_come_back(fresh_weights: Path, tmp_path: Path) -> None:
    from hoi_assets.hashing import digest_folder

    sdxl.save(sd3.stored(fresh_weights / "sd3"), tmp_path)
    assert digest_folder(tmp_path) == digest_folder(fresh_weights / "sd3")
    with pytest.raises(HoiError, match="no tiny sd3"):
        sd3.stored(tmp_path / "none")


def test_text_encoders_begin_with_what_sdxl_knows(fresh_weights: Path) -> None:
    from hoi_assets.tinyworld.weights import sdxl

    other, fresh = sdxl.stored(fresh_weights / "sdxl"), sd3.build_pipeline()
    sd3.start_from_sdxl(fresh, other)
    for part in ("text_encoder", "text_encoder_2"):
        ours, theirs = getattr(fresh, part), getattr(other, part)
        tokenizers = [getattr(p, part.replace("text_encoder", "tokenizer"))
                      for p in (fresh, other)]  # fmt: skip
        words = [tokenizer.convert_tokens_to_ids("ball</w>") for tokenizer in tokenizers]
        tables = [model.get_input_embeddings().weight for model in (ours, theirs)]
        assert torch.equal(tables[0][words[0]], tables[1][words[1]])
        layers = [
            {name.split("layers.")[1]: value for name, value in model.state_dict().items()
             if "layers." in name}
            for model in (ours, theirs)
        ]  # fmt: skip
        assert layers[0] and all(
            torch.equal(layers[0][name], layers[1][name]) for name in layers[1]
        )


def test_transformer_that_starts_at_zero_learns(pipeline: Any) -> None:
    transformer = sd3.build_transformer()
    sd3.start_at_zero(transformer)
    generator = torch.Generator().manual_seed(0)
    arguments = {
        "hidden_states": torch.randn(2, 8, 16, 16, generator=generator),
        "timestep": torch.tensor([10.0, 900.0]),
        "encoder_hidden_states": torch.randn(2, 65, 224, generator=generator),
        "pooled_projections": torch.randn(2, 224, generator=generator),
        "return_dict": False,
    }
    target = torch.randn(2, 8, 16, 16, generator=generator)
    optimizer = torch.optim.Adam(transformer.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        predicted = transformer(**arguments)[0]
        loss = (predicted - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(float(target.square().mean()))
    assert losses[-1] < losses[0]


def test_wordings_of_an_interaction_are_its_caption_and_corrected_prompts() -> None:
    rows = [interaction(n, scenario) for n, scenario in enumerate(SCENARIOS * 5)]
    texts = sd3.prompt_variants(Pictures(rows, torch.zeros(len(rows), 3, 1, 1), {}), 4)
    for row, said in zip(rows, texts, strict=True):
        components = parse(row["caption"]) or ()
        phrases = {f"{each.subject} {each.relation} {each.object}" for each in components}
        assert said[0] == row["caption"] and len(said) == 4
        for text in said[1:]:
            assert text.startswith(f"{row['caption']}, ")
            assert set(text.removeprefix(f"{row['caption']}, ").split(", ")) <= phrases


def test_a_step_takes_the_stated_share_of_interactions() -> None:
    rows = [{"split": "pretrain" if n % 2 else "interactions"} for n in range(40)]
    recipe = replace(RECIPES["sd3"], batch_size=4000)
    pictures = Pictures(rows, torch.zeros(40, 1), {})
    chosen = sd3._picture_sampler(pictures, recipe)(torch.Generator().manual_seed(0))
    share = sum(rows[n]["split"] == "interactions" for n in chosen) / len(chosen)
    assert share == pytest.approx(recipe["interactions_share"], abs=0.03)
    alone = sd3._picture_sampler(pictures.take(range(0, 40, 2)), recipe)
    assert set(alone(torch.Generator().manual_seed(0))) == set(range(20))


def test_interactions_are_read_from_a_folder_of_their_own(
    fresh_weights: Path, tmp_path: Path
) -> None:
    from hoi_assets.tinyworld.weights.card import Card, write_card
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train_generators import interaction_pictures

    write_shapes(tmp_path / "world", "pretrain", 20)
    write_shapes(tmp_path / "scenes", "interactions", 30)
    card = Card("vae", "0123456789abcdef", "none", 0, 0, "", 0, 7, 7, 0, 0.0, "none", 0)
    (tmp_path / "out" / "sdxl" / "vae").mkdir(parents=True)
    write_card(tmp_path / "out" / "sdxl" / "vae", card)
    run = Run(tmp_path / "world", tmp_path / "out", tmp_path / "state", lambda line: None)
    with pytest.raises(HoiError, match="no pool of scenes"):
        interaction_pictures(run, RECIPES["sd3"])
    run = replace(run, interactions=tmp_path / "scenes")
    learnt, held, note = interaction_pictures(run, RECIPES["sd3"])
    splits = [row["split"] for row in learnt.rows + held.rows]
    assert (splits.count("interactions"), splits.count("pretrain")) == (30, 20)
    assert "0123456789abcdef" in note
