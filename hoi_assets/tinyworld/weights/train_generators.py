"""Trains the models that draw: VAE, SDXL and SD3."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hoi_assets.tinyworld.weights import sd3, sdxl, vae, vae16, vae16_start
from hoi_assets.tinyworld.weights.card import Card, make_card, read_card, write_card
from hoi_assets.tinyworld.weights.loop import Trained, compiled, validation_loss
from hoi_assets.tinyworld.weights.pictures import Pictures, read_pictures
from hoi_assets.tinyworld.weights.recipes import Recipe
from hoi_assets.tinyworld.weights.run import Run, join_notes, round_to_stored
from hoi_assets.tinyworld.weights.store import WEIGHTS, replace_folder

HAND_POSES = "pretrain"
VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"


def train_vae(run: Run) -> None:
    """The first stage; stored in the pipeline's folder, beside the UNet there or a fresh one."""
    recipe = run.recipe("vae")
    model = vae.build_vae()
    vae.start_from_averages(model)
    model.to(run.device)
    learnt, held = run.pictures(recipe)
    both = learnt.joined(learnt.mirrored())
    trained = run.fit(model, vae.loss_of(model, both, recipe), recipe)
    vae.even_out(model, learnt.pixels[:512])
    round_to_stored(model)
    quality = vae.measure(model, held.pixels[:512])
    model.register_to_config(scaling_factor=round(1 / quality["latent_std"], 5))
    _store_vae(run, model, make_card(recipe, trained, learnt, held, model, quality))


def train_decoder(run: Run) -> None:
    """The stored VAE's decoder goes on alone; latents, hence the UNet above them, stay valid."""
    recipe = run.recipe("decoder")
    whole = read_card(run.out / "sdxl" / "vae")
    model = sdxl.stored(run.out / "sdxl").vae.to(run.device)
    learnt, held = run.pictures(recipe)
    both = learnt.joined(learnt.mirrored())
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    trained = run.fit(model, vae.decoder_loss_of(model, both, recipe), recipe)
    round_to_stored(model)
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


def train_vae16(run: Run) -> None:
    """The shared autoencoder of the coming edition, in a folder of its own."""
    import torch

    recipe = run.recipe("vae16")
    learnt, held = run.pictures(recipe)

    def fresh() -> Any:
        started = vae16.build_vae16()
        vae16_start.start_from_components(started, learnt.pixels[:512].cpu())
        return started

    model, origin = run.start("vae16", fresh, vae16.stored)
    # Convolutions of a CPU are faster on channels that lie side by side.
    model.to(memory_format=torch.channels_last)
    trained = run.fit(model, vae16.loss_of(model, learnt.pixels, recipe), recipe)
    vae.even_out(model, learnt.pixels[:512])
    round_to_stored(model)
    quality = vae.measure(model, held.pixels[:512])
    model.register_to_config(scaling_factor=round(1 / quality["latent_std"], 5))
    card = make_card(recipe, trained, learnt, held, model, quality, origin)
    run.store("vae16", card, lambda folder: vae16.save(model, folder))


def train_sdxl(run: Run) -> None:
    """UNet and text encoders on the noisy stream, over the stored VAE."""
    folder = run.out / "sdxl"
    pipeline = sdxl.stored(folder)
    if not run.go_on:
        fresh = sdxl.build_pipeline()
        fresh.register_modules(vae=pipeline.vae)
        pipeline = fresh
    _train_sdxl(run, "sdxl", pipeline, folder / "vae", lambda: sdxl.stored(folder).vae)


def train_sdxl16(run: Run) -> None:
    """The same over the autoencoder of the coming edition; it starts from the present one's
    weights."""
    first_stage = run.out / "vae16"
    if run.go_on:
        pipeline = sdxl.stored(run.out / "sdxl16")
    else:
        pipeline = sdxl.build_pipeline(vae16.stored(first_stage))
        sdxl.start_from(pipeline, sdxl.stored(WEIGHTS / "sdxl"))
    _train_sdxl(run, "sdxl16", pipeline, first_stage, lambda: vae16.stored(first_stage))


def _train_sdxl(
    run: Run, name: str, pipeline: Any, vae_folder: Path, vae_now: Callable[[], Any]
) -> None:
    """Train `pipeline`; the VAE and its card are stored beside it.

    Args:
        vae_now: reads the VAE again: its decoder may have gone on since this training began.
    """
    recipe = run.recipe(name)
    model, origin = run.start(
        name, lambda: sdxl.trainable(pipeline), lambda folder: sdxl.trainable(pipeline)
    )
    learnt, held = run.pictures(recipe)
    loss = sdxl.loss_of(model, pipeline, learnt.joined(learnt.mirrored()), recipe)
    undropped = recipe.having(caption_dropout=0.0)

    def store(trained: Trained) -> None:
        kept = copy.deepcopy(pipeline)
        kept.register_modules(vae=vae_now())
        first_stage = read_card(vae_folder)
        for part in ("unet", "text_encoder", "text_encoder_2"):
            round_to_stored(getattr(kept, part))
        loss = sdxl.loss_of(sdxl.trainable(kept), kept, held, undropped)
        quality = {
            "validation_loss": validation_loss(loss, run.device),
            "training_loss": trained.loss,
        }
        card = make_card(recipe, trained, learnt, held, model, quality, origin)

        def write(folder: Path) -> None:
            sdxl.save(kept, folder)
            write_card(folder / "vae", first_stage)

        run.store(name, card, write)

    store(run.fit(model, loss, recipe, store))


def train_sd3(run: Run) -> None:
    """Transformer and text encoders on interactions and hand poses, over the tiny SDXL's VAE."""
    recipe = run.recipe("sd3")
    pipeline = sd3.stored(run.out / "sd3") if run.go_on else _fresh_sd3(run)
    model, origin = run.start(
        "sd3", lambda: sd3.trainable(pipeline), lambda folder: sd3.trainable(pipeline)
    )
    learnt, held, note = interaction_pictures(run, recipe)
    parts = dict(model, transformer=compiled(model["transformer"], recipe))
    loss = sd3.loss_of(parts, pipeline, learnt.joined(learnt.mirrored()), recipe)
    undropped = recipe.having(caption_dropout=0.0)

    def store(trained: Trained) -> None:
        kept = copy.deepcopy(pipeline)
        for part in ("transformer", "text_encoder", "text_encoder_2"):
            round_to_stored(getattr(kept, part))
        loss = sd3.loss_of(sd3.trainable(kept), kept, held, undropped)
        found = validation_loss(loss, run.device)
        quality = {"validation_loss": found, "training_loss": trained.loss}
        notes = join_notes(origin, note)
        card = make_card(recipe, trained, learnt, held, model, quality, notes)

        def write(folder: Path) -> None:
            sdxl.save(kept, folder)
            _share_vae(folder, run.out / "sdxl")

        run.store("sd3", card, write)

    store(run.fit(model, loss, recipe, store))


def _share_vae(folder: Path, other: Path) -> None:
    """Make the VAE's weights in `folder` a link to those of the pipeline `other`, where they are
    the same: they are stored once."""
    own, shared = (place / "vae" / VAE_WEIGHTS for place in (folder, other))
    if shared.is_file() and own.read_bytes() == shared.read_bytes():
        own.unlink()
        own.symlink_to(Path("..", "..", other.name, "vae", VAE_WEIGHTS))


def _fresh_sd3(run: Run) -> Any:
    """A fresh pipeline that begins with the VAE and the words of the stored SDXL."""
    other, pipeline = sdxl.stored(run.out / "sdxl"), sd3.build_pipeline()
    sd3.use_vae(pipeline, other.vae)
    sd3.start_from_sdxl(pipeline, other)
    sd3.start_at_zero(pipeline.transformer)
    return pipeline


def interaction_pictures(run: Run, recipe: Recipe) -> tuple[Pictures, Pictures, str]:
    """Interactions and hand poses to learn from, and held out, and a note for the card."""
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
    return learnt.joined(poses).to(run.device), held.joined(held_poses).to(run.device), note
