"""The tiny critic and the examiner of components: their words, their start, and what they learn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.engines.vilt.vqa import answers, load_vqa
from hoi_assets.grammar.plans import SCENARIOS, make_plan
from hoi_assets.grammar.questions import question
from hoi_assets.grammar.sentences import triples
from hoi_assets.tinyworld.weights import vqa
from hoi_assets.tinyworld.weights.pictures import read_pictures
from hoi_assets.tinyworld.weights.recipes import RECIPES
from hoi_assets_tests.tinyworld.weights.shapes import INTERACTIONS

NAMES = ("vqa", "component_examiner")


def _questions(count: int) -> list[str]:
    plans = [make_plan(scenario, n) for scenario in SCENARIOS for n in range(count)]
    return sorted({question(triple) for plan in plans for triple in triples(plan)})


def test_every_word_of_a_question_is_one_token_and_every_question_fits() -> None:
    tokenizer = vqa.tokenizer()
    for text in _questions(300):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) <= vqa.QUESTION_LENGTH
        assert len(ids) == len(text.split()) + 3  # start, "?", end
        assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", NAMES)
def test_fresh_model_answers_questions(name: str, fresh_weights: Path) -> None:
    model = load_vqa(fresh_weights / name)
    texts = ["does a left hand hold a red spoon?", "do six red balls form a ring?"]
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    found = answers(model, [Image.fromarray(pixels)] * 2, texts)
    assert all(0 < p < 1 for p in found) and found[0] != found[1]


def test_critic_and_examiner_share_neither_scenes_nor_seed() -> None:
    critic, examiner = RECIPES["vqa"], RECIPES["component_examiner"]
    assert critic.split != examiner.split and critic.seed != examiner.seed


def test_critic_begins_with_what_the_verifier_knows(fresh_weights: Path) -> None:
    verifier = load_verifier(fresh_weights / "vilt")
    words = vqa.tokenizer()
    model = vqa.build(words)
    vqa.start_from(model, words, verifier)
    ours, theirs = model.vilt.state_dict(), verifier.model.vilt.state_dict()
    name = "embeddings.text_embeddings.word_embeddings.weight"
    spoon = (words.get_vocab()["spoon"], verifier.tokenizer.get_vocab()["spoon"])
    assert torch.equal(ours[name][spoon[0]], theirs[name][spoon[1]].float())
    alike = [key for key in ours if ours[key].shape == theirs[key].shape and key != name]
    assert len(alike) > 80
    assert all(torch.equal(ours[key], theirs[key].float()) for key in alike)


def test_model_learns_the_scenes_it_sees(shapes_world: Path, tmp_path: Path) -> None:
    from hoi_assets.tinyworld.weights.loop import fit

    pictures = read_pictures(shapes_world, "interactions", limit=12)
    recipe = replace(RECIPES["vqa"], steps=60, batch_size=16, learning_rate=2e-3, warmup_steps=5)
    torch.manual_seed(0)
    model = vqa.build(vqa.tokenizer(), vqa.Size(64, 2, 2))
    whole = vqa.trainable(model)
    loss = vqa.loss_of(whole, pictures, recipe)
    before = float(loss(torch.Generator().manual_seed(1)).detach())
    fit(whole, loss, recipe, tmp_path, log=lambda line: None)
    assert float(loss(torch.Generator().manual_seed(1)).detach()) < 0.7 * before


def test_figures_are_of_the_questions_that_come_with_the_scenes(shapes_world: Path) -> None:
    pictures = read_pictures(shapes_world, "interactions")
    torch.manual_seed(0)
    model = vqa.build(vqa.tokenizer(), vqa.Size(64, 2, 2)).eval()
    with torch.no_grad():
        # A model that says yes to everything is right as often as yes is the answer.
        model.classifier[-1].weight.zero_()
        model.classifier[-1].bias.copy_(torch.tensor([1.0, 0.0]))
    found = vqa.measure(model, pictures)
    given = [yes for row in pictures.rows for yes in row["answers"]]
    assert found["questions"] == len(given)
    assert found["accuracy"] == pytest.approx(sum(given) / len(given)) == found["yes_share"]
    kinds = {kind for row in pictures.rows for kind in row["kinds"]}
    assert kinds == {"action", "holding", "place", "shape"}
    assert {f"{kind}_accuracy" for kind in kinds} <= set(found)


@pytest.mark.slow
def test_examiner_reads_its_own_split_from_the_folder_of_interactions(
    fresh_weights: Path, shapes_world: Path, tmp_path: Path
) -> None:
    import shutil

    from hoi_assets.tinyworld.weights.card import read_card
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train
    from hoi_assets_tests.tinyworld.weights.test_training import _cards

    recipe = replace(RECIPES["component_examiner"], steps=1, warmup_steps=1, batch_size=4)
    recipe = recipe.having(through_vae=3)
    out = tmp_path / "out"
    shutil.copytree(fresh_weights, out)
    _cards(out, recipe)
    run = Run(
        tmp_path / "none",
        out,
        tmp_path / "state",
        lambda line: None,
        recipes={**RECIPES, recipe.name: recipe},
        interactions=shapes_world,
    )
    train(["component_examiner"], run)
    card = read_card(out / "component_examiner")
    assert card.split == "interactions_examiner" and card.steps == 1
    assert card.pictures + card.held_out == INTERACTIONS
    assert {"accuracy", "auc", "through_vae_accuracy", "holding_accuracy"} <= set(card.quality)
    load_vqa(out / "component_examiner")
