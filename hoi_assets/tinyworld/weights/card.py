"""Model cards: what a recipe did and what was measured, in the front matter and as a table."""

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights.loop import Trained
from hoi_assets.tinyworld.weights.recipes import Recipe

HERE = Path(__file__).parent
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Card:
    """Everything a card states. `quality`: figures by name; `minutes`: wall time; `note`: what
    the command alone does not repeat."""

    recipe: str
    recipe_digest: str
    split: str
    pictures: int
    held_out: int
    data_digest: str
    seed: int
    steps: int
    planned_steps: int
    batch_size: int
    minutes: float
    hardware: str
    parameters: int
    quality: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def with_quality(self, **figures: float) -> "Card":
        """The card with further figures."""
        return replace(self, quality={**self.quality, **figures})


def make_card(
    recipe: Recipe,
    trained: Trained,
    learnt: Any,
    held: Any,
    model: Any,
    quality: dict[str, float],
    note: str = "",
) -> Card:
    """The card of a training on `learnt` pictures, measured on `held` ones."""
    return Card(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        split=recipe.split,
        pictures=len(learnt),
        held_out=len(held),
        data_digest=learnt.digest,
        seed=recipe.seed,
        steps=trained.steps,
        planned_steps=trained.planned,
        batch_size=recipe.batch_size,
        minutes=round(trained.minutes, 2),
        hardware=hardware(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        quality={name: round(value, 5) for name, value in quality.items()},
        note=note,
    )


def hardware() -> str:
    """The class of machine, and what it computed in."""
    import torch

    fast = torch.cpu._is_amx_tile_supported()
    kind = "AMX, bf16 autocast" if fast else f"{torch.backends.cpu.get_cpu_capability()}, fp32"
    return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {kind}"


def write_card(folder: Path, card: Card) -> None:
    """Write `card` to `folder/README.md`."""
    from jinja2 import Environment

    about = yaml.safe_load((HERE / "about.yaml").read_text(encoding="utf-8"))[card.recipe]
    front = yaml.safe_dump(
        {"license": "apache-2.0", "library_name": about["library"], **asdict(card)},
        sort_keys=False,
    )
    template = (HERE / "card.md.j2").read_text(encoding="utf-8")
    text = Environment().from_string(template).render(card=card, about=about, front=front)
    (folder / CARD_FILE).write_text(text.rstrip() + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card in `folder/README.md`.

    Raises:
        HoiError: there is none.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise HoiError(
            f"{folder} has no model card",
            "train the model: python -m hoi_assets.tinyworld.weights train",
        )
    front = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
    return Card(**{k: v for k, v in front.items() if k not in ("license", "library_name")})
