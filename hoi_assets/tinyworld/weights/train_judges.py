"""Trains the models that judge: CLIP, verifier, ImageReward, examiner and critics."""

from typing import Any

from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.examiner import load_examiner
from hoi_assets.engines.image_reward import load_image_reward
from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.engines.vilt.vqa import load_vqa
from hoi_assets.tinyworld.weights import clip, examiner, image_reward, sdxl, vilt, vqa
from hoi_assets.tinyworld.weights.card import make_card, read_card
from hoi_assets.tinyworld.weights.run import Run, join_notes, pictures_as_shown, round_to_stored
from hoi_assets.tinyworld.weights.tokenizers import bert_tokenizer, clip_tokenizer
from hoi_assets.tinyworld.weights.views import with_views


def train_clip(run: Run) -> None:
    """Pictures, true and false captions."""
    recipe = run.recipe("clip")
    model, origin = run.start(
        "clip", lambda: clip.build(clip_tokenizer()), lambda folder: load_clip(folder).model
    )
    # The fused kernel's backward pass is twice as slow on a CPU.
    model.set_attn_implementation("eager")
    learnt, held, views = pictures_as_shown(run, recipe)
    trained = run.fit(model, clip.loss_of(model, learnt, recipe), recipe)
    round_to_stored(model)
    quality = clip.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, join_notes(origin, views))
    run.store("clip", card, lambda folder: clip.save(model, folder))


def train_vilt(run: Run) -> None:
    """Fidelity and alignment of pairs, and where defects are, from twins."""
    recipe = run.recipe("vilt")
    model, origin = run.start(
        "vilt",
        lambda: vilt.build(bert_tokenizer()),
        lambda folder: vilt.stored(load_verifier(folder)),
    )
    learnt, held, views = pictures_as_shown(run, recipe)
    whole = vilt.trainable(model)
    trained = run.fit(whole, vilt.loss_of(whole, learnt, recipe), recipe)
    round_to_stored(model)
    quality = vilt.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, join_notes(origin, views))
    run.store("vilt", card, lambda folder: vilt.save(model, folder))


def train_image_reward(run: Run) -> None:
    """Preferences made from truth."""
    recipe = run.recipe("image_reward")
    model, origin = run.start(
        "image_reward",
        lambda: image_reward.build(bert_tokenizer()),
        lambda folder: image_reward.parts(load_image_reward(folder)),
    )
    learnt, held, views = pictures_as_shown(run, recipe)
    whole = image_reward.trainable(model)
    trained = run.fit(whole, image_reward.loss_of(whole, learnt, recipe), recipe)
    round_to_stored(model)
    quality = image_reward.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, join_notes(origin, views))
    run.store(
        "image_reward",
        card,
        lambda folder: image_reward.save(model, folder, quality["mean"], quality["std"]),
    )


def train_examiner(run: Run) -> None:
    """Labels of pictures of other seeds."""
    recipe = run.recipe("examiner")
    model, origin = run.start(
        "examiner", examiner.build, lambda folder: load_examiner(folder).model
    )
    learnt, held, views = pictures_as_shown(run, recipe)
    trained = run.fit(model, examiner.loss_of(model, learnt, recipe), recipe)
    round_to_stored(model)
    quality = examiner.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, join_notes(origin, views))
    run.store("examiner", card, lambda folder: examiner.save(model, folder))


def train_vqa(run: Run) -> None:
    """The critic: yes or no to each component."""
    _train_answers(run, "vqa")


def train_component_examiner(run: Run) -> None:
    """Like the critic, from other scenes."""
    _train_answers(run, "component_examiner")


def _train_answers(run: Run, name: str) -> None:
    """A model of yes and no that begins with what the verifier knows."""
    recipe = run.recipe(name)

    def fresh() -> Any:
        words = vqa.tokenizer()
        model = vqa.build(words)
        vqa.start_from(model, words, load_verifier(run.out / "vilt"))
        return model

    model, origin = run.start(name, fresh, lambda folder: load_vqa(folder).model)
    learnt, held = run.pictures(recipe)
    pipeline, views = sdxl.stored(run.out / "sdxl").to(run.device), run.state / "views"
    shown = with_views(learnt, pipeline, int(recipe["through_vae"]), 0, views, run.log)
    whole = vqa.trainable(model)
    trained = run.fit(whole, vqa.loss_of(whole, shown.joined(shown.mirrored()), recipe), recipe)
    round_to_stored(model)
    twice = with_views(held, pipeline, len(held), 0, views, run.log)
    decoded = twice.take(range(len(held), 2 * len(held)))
    quality = vqa.measure(model.eval(), held)
    quality["through_vae_accuracy"] = vqa.measure(model, decoded)["accuracy"]
    vae_recipe = read_card(run.out / "sdxl" / "vae").recipe_digest
    note = (
        "It began as the tiny ViLT verifier. Pictures were also seen through the tiny SDXL's VAE, "
        f"recipe {vae_recipe}."
    )
    card = make_card(recipe, trained, learnt, held, model, quality, join_notes(origin, note))
    run.store(name, card, lambda folder: vqa.save(model, folder))
