"""Trains the tiny models one after another, by their recipes; stores them with their cards."""

from collections.abc import Callable, Sequence

from hoi_assets.engines.examiner import load_examiner
from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights import sdxl
from hoi_assets.tinyworld.weights.card import read_card, write_card
from hoi_assets.tinyworld.weights.pictures import as_images, read_pictures
from hoi_assets.tinyworld.weights.run import Run
from hoi_assets.tinyworld.weights.train_generators import (
    train_decoder,
    train_sd3,
    train_sdxl,
    train_sdxl16,
    train_vae,
    train_vae16,
)
from hoi_assets.tinyworld.weights.train_judges import (
    train_clip,
    train_component_examiner,
    train_examiner,
    train_image_reward,
    train_vilt,
    train_vqa,
)

SHEET_PROMPTS = 64


def train(names: Sequence[str], run: Run) -> None:
    """Train the named models in the order in which they build on each other; none names all of
    this edition (`STAGES`), and then adds to SDXL's card what the examiner finds in its pictures.

    Raises:
        HoiError: an unknown name, no world, or a checkpoint of another recipe.
    """
    import torch

    known = {**STAGES, **COMING}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise HoiError(f"no recipe called {unknown[0]!r}", f"name some of: {', '.join(known)}")
    for name, stage in known.items():
        if name in (names or STAGES):
            torch.manual_seed(run.recipe(name).seed)
            stage(run)
    if not names:
        add_truth_rates(run)


def add_truth_rates(run: Run) -> None:
    """Draw held-out captions with the stored SDXL and add to its card what the examiner finds."""
    from hoi_assets.engines.examiner import agrees, examine

    recipe = run.recipe("sdxl")
    _, held = read_pictures(run.world, recipe.split, run.state / recipe.name).halves()
    truthful = [
        i for i, row in enumerate(held.rows) if row["alignment"] and row["category"] is not None
    ]
    chosen = held.take(truthful[:: max(1, len(truthful) // SHEET_PROMPTS)][:SHEET_PROMPTS])
    drawn = sdxl.generate(
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

# Models of the coming edition: trained only when named, as nothing of this edition uses them.
COMING: dict[str, Callable[[Run], None]] = {
    "vae16": train_vae16,
    "sdxl16": train_sdxl16,
}
