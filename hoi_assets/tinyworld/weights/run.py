"""Where a training reads and writes, and what all trainings share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.progress import Log
from hoi_assets.tinyworld.scenes.interactions.stream import INTERACTION_SPLITS
from hoi_assets.tinyworld.weights import sdxl
from hoi_assets.tinyworld.weights.card import Card, read_card, write_card
from hoi_assets.tinyworld.weights.loop import CHECKPOINT_S, Trained, fit
from hoi_assets.tinyworld.weights.pictures import Pictures, read_pictures
from hoi_assets.tinyworld.weights.recipes import RECIPES, Recipe
from hoi_assets.tinyworld.weights.store import replace_folder
from hoi_assets.tinyworld.weights.views import with_views

ORIGIN_FILE = "origin.txt"


@dataclass(frozen=True)
class Run:
    """Where a training reads and writes, and which recipes it follows.

    Attributes:
        world: folder of pictures; out: folder of the models; state: folder of checkpoints.
        go_on: continue from the stored weights instead of fresh ones; the card says so.
        interactions: folder of the interaction scenes, where that is not the world.
        device: of models and pictures; random numbers come from the CPU's generator, so they are
            the same on every device.
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
    device: str = "cpu"

    def recipe(self, name: str) -> Recipe:
        """The recipe called `name`."""
        return (self.recipes or RECIPES)[name]

    def pictures(self, recipe: Recipe) -> tuple[Pictures, Pictures]:
        """Pictures to learn from, and held out; the same ones when the training is resumed."""
        apart = self.interactions if recipe.split in INTERACTION_SPLITS else None
        folder = apart or self.world
        learnt, held = read_pictures(folder, recipe.split, self.state / recipe.name).halves()
        self.log(f"{recipe.name}: {len(learnt)} pictures, {len(held)} held out")
        return learnt.to(self.device), held.to(self.device)

    def fit(
        self,
        model: Any,
        loss: Any,
        recipe: Recipe,
        edition: Callable[[Trained], None] | None = None,
    ) -> Trained:
        """Train by the one loop."""
        return fit(
            model.to(self.device),
            loss,
            recipe,
            self.state / recipe.name,
            self.log,
            self.max_minutes,
            edition,
            self.checkpoint_s,
        )

    def start(self, name: str, fresh: Callable[[], Any], stored: Callable[[Path], Any]) -> Any:
        """The model to train, ready to learn, and its origin, for the card."""
        if not self.go_on:
            return fresh().to(self.device), ""
        kept = self.state / name / ORIGIN_FILE
        if not kept.is_file():
            # Kept beside the checkpoint: the stored card becomes this training's own.
            old = read_card(self.out / name)
            origin = (
                f"Went on from the weights of recipe {old.recipe_digest} after {old.steps} steps."
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(f"{origin} {old.note}".strip(), encoding="utf-8")
        model = stored(self.out / name).to(self.device)
        return model.train().requires_grad_(True), kept.read_text("utf-8")

    def store(self, name: str, card: Card, write: Callable[[Path], None]) -> None:
        """Put a model and its card in place."""

        def fill(folder: Path) -> None:
            write(folder)
            write_card(folder, card)

        replace_folder(self.out / name, fill)
        figures = ", ".join(f"{k} {v:.3g}" for k, v in card.quality.items())
        self.log(f"{name}: stored after {card.steps} steps, {card.minutes:.1f} min: {figures}")


def pictures_as_shown(run: Run, recipe: Recipe) -> tuple[Pictures, Pictures, str]:
    """Pictures to learn from (mirrored too) and held out, as rendered and as the generator shows
    them, and a note for the card."""
    learnt, held = run.pictures(recipe)
    pipeline, folder = sdxl.stored(run.out / "sdxl").to(run.device), run.state / "views"
    plain, noisy = int(recipe["through_vae"]), int(recipe["renoised"])
    learnt = with_views(learnt, pipeline, plain, noisy, folder, run.log)
    held = with_views(held, pipeline, plain // 10, noisy // 10, folder, run.log)
    drawn_by = read_card(run.out / "sdxl")
    note = (
        f"Pictures as the generator shows them were made by the tiny SDXL of recipe "
        f"{drawn_by.recipe_digest} after {drawn_by.steps} steps."
    )
    return learnt.joined(learnt.mirrored()), held, note


def join_notes(origin: str, note: str) -> str:
    """The card's note; a note that the origin holds already is not repeated."""
    return origin if note in origin else f"{origin} {note}".strip()


def round_to_stored(model: Any) -> None:
    """Round weights to the fp16 they are stored in, so that what is measured is what is stored."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
