"""Trains the tiny models one after another, by their recipes; stores them with their cards."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.examiner import load_examiner
from hoi_assets.engines.image_reward import load_image_reward
from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.engines.vilt.vqa import load_vqa
from hoi_assets.errors import HoiError
from hoi_assets.grammar.interactions import SPLITS
from hoi_assets.progress import Log
from hoi_assets.tinyworld.weights import clip, examiner, image_reward, sd3, sdxl, vae, vilt, vqa
from hoi_assets.tinyworld.weights.card import Card, make_card, read_card, write_card
from hoi_assets.tinyworld.weights.loop import CHECKPOINT_S, Trained, compiled, fit, validation_loss
from hoi_assets.tinyworld.weights.pictures import Pictures, as_images, read_pictures
from hoi_assets.tinyworld.weights.recipes import RECIPES, Recipe
from hoi_assets.tinyworld.weights.store import replace_folder
from hoi_assets.tinyworld.weights.tokenizers import bert_tokenizer, clip_tokenizer
from hoi_assets.tinyworld.weights.views import with_views

SHEET_PROMPTS = 64
HAND_POSES = "pretrain"
ORIGIN_FILE = "origin.txt"


@dataclass(frozen=True)
class Run:
    """Where a training reads and writes, and which recipes it follows.

    Attributes:
        world: folder of pictures; out: folder of the models; state: folder of checkpoints.
        go_on: start from the stored weights instead of fresh ones; the card says so.
        interactions: folder of the interaction scenes, where that is not the world.
    """

    world: Path
    out: Path
    state: Path
    log: Log = print
    max_minutes: float | None = None
    checkpoint_s: float = CHECKPOINT_S
    recipes: dict[str, Recipe] | None = None
    go_on: bool = False
    interactions: Path | None = None

    def recipe(self, name: str) -> Recipe:
        """The recipe called `name`."""
        return (self.recipes or RECIPES)[name]

    def pictures(self, recipe: Recipe) -> tuple[Pictures, Pictures]:
        """Pictures to learn from, and held out; the same ones when the training is resumed."""
        apart = self.interactions if recipe.split in SPLITS else None
        folder = apart or self.world
        found = read_pictures(folder, recipe.split, self.state / recipe.name).halves()
        self.log(f"{recipe.name}: {len(found[0])} pictures, {len(found[1])} held out")
        return found

    def fit(
        self,
        model: Any,
        loss: Any,
        recipe: Recipe,
        edition: Callable[[Trained], None] | None = None,
    ) -> Trained:
        """Train by the one loop."""
        return fit(
            model,
            loss,
            recipe,
            self.state / recipe.name,
            self.log,
            self.max_minutes,
            edition,
            self.checkpoint_s,
        )

    def start(self, name: str, fresh: Callable[[], Any], stored: Callable[[Path], Any]) -> Any:
        """The model to train, ready to learn, and what its card has to say of its origin."""
        if not self.go_on:
            return fresh(), ""
        kept = self.state / name / ORIGIN_FILE
        if not kept.is_file():
            # Kept beside the checkpoint: the stored card becomes this training's own.
            old = read_card(self.out / name)
            said = (
                f"Went on from the weights of recipe {old.recipe_digest} after {old.steps} steps."
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(f"{said} {old.note}".strip(), encoding="utf-8")
        return stored(self.out / name).train().requires_grad_(True), kept.read_text("utf-8")

    def store(self, name: str, card: Card, write: Callable[[Path], None]) -> None:
        """Put a model and its card in place."""

        def fill(folder: Path) -> None:
            write(folder)
            write_card(folder, card)

        replace_folder(self.out / name, fill)
        figures = ", ".join(f"{k} {v:.3g}" for k, v in card.quality.items())
        self.log(f"{name}: stored after {card.steps} steps, {card.minutes:.1f} min: {figures}")


def train(names: Sequence[str], run: Run) -> None:
    """Train the named models in the order in which they build on each other; none names all, and
    then adds to SDXL's card what the examiner finds in its pictures.

    Raises:
        HoiError: an unknown name, no world, or a checkpoint of another recipe.
    """
    import torch

    unknown = sorted(set(names) - set(STAGES))
    if unknown:
        raise HoiError(f"no recipe called {unknown[0]!r}", f"name some of: {', '.join(STAGES)}")
    for name, stage in STAGES.items():
        if not names or name in names:
            torch.manual_seed(run.recipe(name).seed)
            stage(run)
    if not names:
        add_truth_rates(run)


def train_vae(run: Run) -> None:
    """The first stage; stored in the pipeline's folder, beside the UNet there or a fresh one."""
    recipe = run.recipe("vae")
    model = vae.build_vae()
    vae.start_from_averages(model)
    learnt, held = run.pictures(recipe)
    both = learnt.joined(learnt.mirrored())
    trained = run.fit(model, vae.loss_of(model, both, recipe), recipe)
    vae.even_out(model, learnt.pixels[:512])
    _round_to_stored(model)
    quality = vae.measure(model, held.pixels[:512])
    model.register_to_config(scaling_factor=round(1 / quality["latent_std"], 5))
    _store_vae(run, model, make_card(recipe, trained, learnt, held, model, quality))


def train_decoder(run: Run) -> None:
    """The stored VAE's decoder goes on alone; latents, hence the UNet above them, stay valid."""
    recipe = run.recipe("decoder")
    whole = read_card(run.out / "sdxl" / "vae")
    model = sdxl.stored(run.out / "sdxl").vae
    learnt, held = run.pictures(recipe)
    both = learnt.joined(learnt.mirrored())
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    trained = run.fit(model, vae.decoder_loss_of(model, both, recipe), recipe)
    _round_to_stored(model)
    card = make_card(recipe, trained, learnt, held, model, vae.measure(model, held.pixels[:512]))
    first = f"recipe vae ({whole.recipe_digest}), {whole.steps} steps, {whole.minutes:.1f} minutes"
    note = whole.note or f"The encoder is that of {first}; then the decoder went on alone."
    _store_vae(run, model, replace(card, note=note))


def _store_vae(run: Run, model: Any, card: Card) -> None:
    """Put the VAE into the stored pipeline, or into a fresh one; the rest stays as it is."""
    old = run.out / "sdxl"
    pipeline = (
        sdxl.stored(run.out / "sdxl")
        if (old / "model_index.json").is_file()
        else sdxl.build_pipeline()
    )
    pipeline.register_modules(vae=model)
    rest = read_card(old) if (old / "README.md").is_file() else None

    def write(folder: Path) -> None:
        sdxl.save(pipeline, folder)
        write_card(folder / "vae", card)
        if rest is not None:
            write_card(folder, rest)

    replace_folder(old, write)
    run.log(f"{card.recipe}: stored, {card.quality['psnr_db']:.1f} dB, {card.minutes:.1f} min")


def train_sdxl(run: Run) -> None:
    """UNet and text encoders on the noisy stream, over the stored VAE."""
    recipe = run.recipe("sdxl")
    pipeline, origin = _start_sdxl(run)
    learnt, held = run.pictures(recipe)
    model = sdxl.trainable(pipeline)
    loss = sdxl.loss_of(model, pipeline, learnt.joined(learnt.mirrored()), recipe)
    undropped = recipe.having(caption_dropout=0.0)

    def store(trained: Trained) -> None:
        kept = copy.deepcopy(pipeline)
        # The decoder may have gone on since this training began.
        kept.register_modules(vae=sdxl.stored(run.out / "sdxl").vae)
        first_stage = read_card(run.out / "sdxl" / "vae")
        for part in ("unet", "text_encoder", "text_encoder_2"):
            _round_to_stored(getattr(kept, part))
        found = validation_loss(sdxl.loss_of(sdxl.trainable(kept), kept, held, undropped))
        quality = {"validation_loss": found, "training_loss": trained.loss}
        card = make_card(recipe, trained, learnt, held, model, quality, origin)

        def write(folder: Path) -> None:
            sdxl.save(kept, folder)
            write_card(folder / "vae", first_stage)

        run.store("sdxl", card, write)

    store(run.fit(model, loss, recipe, store))


def _start_sdxl(run: Run) -> tuple[Any, str]:
    """The pipeline to train, over the stored VAE."""
    stored, fresh = sdxl.stored(run.out / "sdxl"), sdxl.build_pipeline()
    fresh.register_modules(vae=stored.vae)
    model, origin = run.start(
        "sdxl", lambda: sdxl.trainable(fresh), lambda folder: sdxl.trainable(stored)
    )
    return (stored if model["unet"] is stored.unet else fresh), origin


def train_clip(run: Run) -> None:
    """Pictures, true captions and lies."""
    recipe = run.recipe("clip")
    model, origin = run.start(
        "clip", lambda: clip.build(clip_tokenizer()), lambda folder: load_clip(folder).model
    )
    # The fused kernel's backward pass is twice as slow on a CPU.
    model.set_attn_implementation("eager")
    learnt, held, views = _shown(run, recipe)
    trained = run.fit(model, clip.loss_of(model, learnt, recipe), recipe)
    _round_to_stored(model)
    quality = clip.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, _notes(origin, views))
    run.store("clip", card, lambda folder: clip.save(model, folder))


def train_vilt(run: Run) -> None:
    """Fidelity and alignment of pairs."""
    recipe = run.recipe("vilt")
    model, origin = run.start(
        "vilt", lambda: vilt.build(bert_tokenizer()), lambda folder: load_verifier(folder).model
    )
    learnt, held, views = _shown(run, recipe)
    whole = vilt.trainable(model)
    trained = run.fit(whole, vilt.loss_of(whole, learnt, recipe), recipe)
    _round_to_stored(model)
    quality = vilt.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, _notes(origin, views))
    run.store("vilt", card, lambda folder: vilt.save(model, folder))


def train_image_reward(run: Run) -> None:
    """Preferences made from truth."""
    recipe = run.recipe("image_reward")
    model, origin = run.start(
        "image_reward",
        lambda: image_reward.build(bert_tokenizer()),
        lambda folder: image_reward.parts(load_image_reward(folder)),
    )
    learnt, held, views = _shown(run, recipe)
    whole = image_reward.trainable(model)
    trained = run.fit(whole, image_reward.loss_of(whole, learnt, recipe), recipe)
    _round_to_stored(model)
    quality = image_reward.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, _notes(origin, views))
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
    learnt, held, views = _shown(run, recipe)
    trained = run.fit(model, examiner.loss_of(model, learnt, recipe), recipe)
    _round_to_stored(model)
    quality = examiner.measure(model.eval(), held)
    card = make_card(recipe, trained, learnt, held, model, quality, _notes(origin, views))
    run.store("examiner", card, lambda folder: examiner.save(model, folder))


def train_sd3(run: Run) -> None:
    """Transformer and text encoders on interactions and hand poses, over the tiny SDXL's VAE."""
    recipe = run.recipe("sd3")
    pipeline = sd3.stored(run.out / "sd3") if run.go_on else _fresh_sd3(run)
    model, origin = run.start(
        "sd3", lambda: sd3.trainable(pipeline), lambda folder: sd3.trainable(pipeline)
    )
    learnt, held, note = _interactions(run, recipe)
    parts = dict(model, transformer=compiled(model["transformer"], recipe))
    loss = sd3.loss_of(parts, pipeline, learnt.joined(learnt.mirrored()), recipe)
    undropped = recipe.having(caption_dropout=0.0)

    def store(trained: Trained) -> None:
        kept = copy.deepcopy(pipeline)
        for part in ("transformer", "text_encoder", "text_encoder_2"):
            _round_to_stored(getattr(kept, part))
        found = validation_loss(sd3.loss_of(sd3.trainable(kept), kept, held, undropped))
        quality = {"validation_loss": found, "training_loss": trained.loss}
        notes = _notes(origin, note)
        card = make_card(recipe, trained, learnt, held, model, quality, notes)
        run.store("sd3", card, lambda folder: sdxl.save(kept, folder))

    store(run.fit(model, loss, recipe, store))


def _fresh_sd3(run: Run) -> Any:
    """A fresh pipeline that begins with the VAE and the words of the stored SDXL."""
    other, pipeline = sdxl.stored(run.out / "sdxl"), sd3.build_pipeline()
    sd3.use_vae(pipeline, other.vae)
    sd3.start_from_sdxl(pipeline, other)
    sd3.start_at_zero(pipeline.transformer)
    return pipeline


def _interactions(run: Run, recipe: Recipe) -> tuple[Pictures, Pictures, str]:
    """Interactions and hand poses to learn from, and held out, and what the card has to say."""
    state = run.state / recipe.name
    folder = run.interactions or run.world
    learnt, held = read_pictures(folder, recipe.split, state).halves()
    poses, held_poses = read_pictures(run.world, HAND_POSES, state / HAND_POSES).halves()
    run.log(f"{recipe.name}: {len(learnt)} interactions, {len(poses)} hand poses to learn from")
    note = (
        f"{len(poses)} of the pictures are of split `{HAND_POSES}`. The VAE is that of the tiny "
        f"SDXL, recipe {read_card(run.out / 'sdxl' / 'vae').recipe_digest}; the text encoders "
        "began as its."
    )
    return learnt.joined(poses), held.joined(held_poses), note


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
    pipeline, views = sdxl.stored(run.out / "sdxl"), run.state / "views"
    shown = with_views(learnt, pipeline, int(recipe["through_vae"]), 0, views, run.log)
    whole = vqa.trainable(model)
    trained = run.fit(whole, vqa.loss_of(whole, shown.joined(shown.mirrored()), recipe), recipe)
    _round_to_stored(model)
    twice = with_views(held, pipeline, len(held), 0, views, run.log)
    decoded = twice.take(range(len(held), 2 * len(held)))
    quality = vqa.measure(model.eval(), held)
    quality["through_vae_accuracy"] = vqa.measure(model, decoded)["accuracy"]
    vae_recipe = read_card(run.out / "sdxl" / "vae").recipe_digest
    note = (
        "It began as the tiny ViLT verifier. Pictures were also seen through the tiny SDXL's VAE, "
        f"recipe {vae_recipe}."
    )
    card = make_card(recipe, trained, learnt, held, model, quality, _notes(origin, note))
    run.store(name, card, lambda folder: vqa.save(model, folder))


def add_truth_rates(run: Run) -> None:
    """Draw held-out captions with the stored SDXL and add to its card what the examiner finds."""
    from hoi_assets.engines.examiner import agrees, examine

    recipe = run.recipe("sdxl")
    _, held = read_pictures(run.world, recipe.split, run.state / recipe.name).halves()
    truthful = [
        i for i, row in enumerate(held.rows) if row["alignment"] and row["category"] is not None
    ]
    chosen = held.take(truthful[:: max(1, len(truthful) // SHEET_PROMPTS)][:SHEET_PROMPTS])
    drawn = sdxl.draw(
        sdxl.stored(run.out / "sdxl"), [chosen.true_caption(i, None) for i in range(len(chosen))]
    )
    judge = load_examiner(run.out / "examiner")
    figures: dict[str, float] = {}
    for shown, images in (("drawn", drawn), ("rendered", as_images(chosen.pixels))):
        found = [
            agrees(truth, row)
            for truth, row in zip(examine(judge, images), chosen.rows, strict=True)
        ]
        for kind in found[0]:
            figures[f"{shown}_{kind}_right"] = sum(f[kind] for f in found) / len(found)
    folder = run.out / "sdxl"
    write_card(folder, read_card(folder).with_quality(**figures))
    run.log("sdxl: examined: " + ", ".join(f"{k} {v:.2f}" for k, v in figures.items()))


def _shown(run: Run, recipe: Recipe) -> tuple[Pictures, Pictures, str]:
    """Pictures as rendered and as the generator shows them (those to learn from mirrored too), and
    what the card has to say of them."""
    learnt, held = run.pictures(recipe)
    pipeline, folder = sdxl.stored(run.out / "sdxl"), run.state / "views"
    plain, noisy = int(recipe["through_vae"]), int(recipe["renoised"])
    learnt = with_views(learnt, pipeline, plain, noisy, folder, run.log)
    held = with_views(held, pipeline, plain // 10, noisy // 10, folder, run.log)
    drawn_by = read_card(run.out / "sdxl")
    note = (
        f"Pictures as the generator shows them were made by the tiny SDXL of recipe "
        f"{drawn_by.recipe_digest} after {drawn_by.steps} steps."
    )
    return learnt.joined(learnt.mirrored()), held, note


def _notes(origin: str, note: str) -> str:
    """What the card says; what the weights that training went on from said is not said twice."""
    return origin if note in origin else f"{origin} {note}".strip()


def _round_to_stored(model: Any) -> None:
    """Round weights to the fp16 they are stored in, so that what is measured is what is stored."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())


STAGES: dict[str, Callable[[Run], None]] = {
    "vae": train_vae,
    "decoder": train_decoder,
    "sdxl": train_sdxl,
    "clip": train_clip,
    "vilt": train_vilt,
    "image_reward": train_image_reward,
    "examiner": train_examiner,
    "sd3": train_sd3,
    "vqa": train_vqa,
    "component_examiner": train_component_examiner,
}
