"""A stand-in for the rendered world: coloured shapes with its rows, drawn in milliseconds."""

import io
import random
from pathlib import Path

from PIL import Image, ImageDraw

from hoi_assets.grammar.captions import caption
from hoi_assets.grammar.sentences import sentence
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.hashing import digest_pixels
from hoi_assets.store.scene_pool import INTERACTION_SCENES, SCENES, TWIN_SCENES
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for, with_false_claim
from hoi_assets.tinyworld.scenes.interactions.stream import plan_interactions
from hoi_assets.tinyworld.scenes.vocabulary import DEFECTS, TWIN_DEFECTS
from hoi_assets.tinyworld.weights.words import grip_phrases

# Interaction scenes of a split of the shapes world.
INTERACTIONS = 24


def write_shapes(folder: Path, split: str, count: int) -> None:
    """Write one shard of `count` pictures, five to a grasp, some spoilt or with a lying caption."""
    rng, grips = random.Random(split), grip_phrases()
    pictures = folder / "images" / f"{split}-00000"
    pictures.mkdir(parents=True)
    rows = []
    for number in range(count):
        category = rng.choice([*grips, None])
        slots = {
            "side": rng.choice(("left", "right")) if category else None,
            "skin_tone": rng.choice(SKIN_TONES) if category else None,
            "grip": grips.get(category or ""),
            "colour": rng.choice(COLOURS),
            "material": rng.choice(MATERIALS),
            "object": rng.choice(OBJECTS),
            "view": rng.choice(VIEWS),
            "light": rng.choice(LIGHTS),
            "background": rng.choice(BACKGROUNDS),
        }
        told, lies, defects = slots, [], []
        if category and rng.random() < 0.3:
            defects = [rng.choice(DEFECTS)]
        elif rng.random() < 0.2:
            lies = [rng.choice(false_claims_for(slots))]
            told = with_false_claim(slots, lies[0], rng, list(grips.values()))
        image = Image.new("RGB", (128, 128), slots["background"].split()[0])
        x = 20 if slots["side"] == "left" else 50
        ImageDraw.Draw(image).ellipse((x, 30, x + 50, 90), fill=slots["colour"])
        name = f"{split}-{number:06d}"
        image.save(pictures / f"{name}.webp", "WEBP")
        rows.append(
            {column: None for column in SCENES.schema}
            | {k: v for k, v in slots.items() if k != "grip"}
            | {
                "scene_id": name,
                "split": split,
                "file": f"images/{pictures.name}/{name}.webp",
                "caption": caption(told, number),
                "true_caption": caption(slots, number),
                "category": category,
                "hands": int(category is not None),
                "defects": defects,
                "lies": lies,
                "fidelity": not defects,
                "alignment": not lies,
                "seed": number,
                "grasp_id": f"{split}-{number // 5}",
                "digest": digest_pixels(image),
            }
        )
    SCENES.frame(rows).write_parquet(folder / f"{split}-00000.parquet")


def write_twins(folder: Path, split: str, count: int) -> None:
    """Write one shard of `count` pairs: a disc for the hand, in the spoilt picture with a square
    beside it, which is the defect."""
    rng, grips = random.Random(split), grip_phrases()
    rows = []
    for number in range(count):
        category = rng.choice(list(grips))
        slots = {
            "side": rng.choice(("left", "right")),
            "skin_tone": rng.choice(SKIN_TONES),
            "colour": rng.choice(COLOURS),
            "material": rng.choice(MATERIALS),
            "object": rng.choice(OBJECTS),
            "view": rng.choice(VIEWS),
            "light": rng.choice(LIGHTS),
            "background": rng.choice(BACKGROUNDS),
        }
        twin = Image.new("RGB", (128, 128), slots["background"].split()[0])
        ImageDraw.Draw(twin).ellipse((30, 30, 80, 90), fill=slots["colour"])
        parts = Image.new("L", (128, 128))
        ImageDraw.Draw(parts).ellipse((30, 30, 80, 90), fill=1)
        spoilt, defect = twin.copy(), Image.new("1", (128, 128))
        corner = rng.randrange(30, 60)
        square = (corner, corner, corner + 20, corner + 20)
        ImageDraw.Draw(spoilt).rectangle(square, fill="magenta")
        ImageDraw.Draw(defect).rectangle(square, fill=1)
        name = f"{split}-{number:06d}"
        rows.append(
            {column: None for column in TWIN_SCENES.schema}
            | slots
            | {
                "scene_id": name,
                "split": split,
                "defect": rng.choice(TWIN_DEFECTS),
                "caption": caption(slots | {"grip": grips[category]}, number),
                "category": category,
                "hands": 1,
                "picture": encoded(spoilt, "WEBP"),
                "twin": encoded(twin, "WEBP"),
                "defect_map": encoded(defect, "PNG"),
                "parts": encoded(parts, "PNG"),
                "twin_parts": encoded(parts, "PNG"),
                "seed": number,
                "grasp_id": f"{split}-{number // 4}",
                "digest": digest_pixels(spoilt),
                "twin_digest": digest_pixels(twin),
            }
        )
    TWIN_SCENES.frame(rows).write_parquet(folder / f"{split}-00000.parquet")


def encoded(image: Image.Image, kind: str) -> bytes:
    """The picture's file, lossless."""
    buffer = io.BytesIO()
    image.save(buffer, kind, lossless=True)
    return buffer.getvalue()


def write_plans(folder: Path, split: str, count: int) -> None:
    """Write one shard of `count` interactions: planned, told and asked about as rendered ones are,
    drawn as a disc per thing."""
    pictures = folder / "images" / f"{split}-00000"
    pictures.mkdir(parents=True)
    rows = []
    for item in plan_interactions(split, 0, count):
        plan, name = item.drawn, f"{split}-{item.index:06d}"
        image = Image.new("RGB", (128, 128), plan.background.split()[0])
        pen = ImageDraw.Draw(image)
        for place, thing in enumerate(plan.things):
            for number in range(thing.count):
                x, y = 4 + 13 * number, 10 + 40 * place
                pen.ellipse((x, y, x + 12, y + 30), fill=thing.colour)
        for place, hand in enumerate(plan.hands):
            x = 10 if hand.side == "left" else 90
            pen.rectangle((x, 80 + 20 * place, x + 28, 95 + 20 * place), fill="tan")
        image.save(pictures / f"{name}.webp", "WEBP")
        rows.append(
            {column: None for column in INTERACTION_SCENES.schema}
            | item.row()
            | {
                "file": f"images/{pictures.name}/{name}.webp",
                "scenario": plan.scenario,
                "pattern": plan.pattern,
                "caption": sentence(plan),
                "plan": plan.as_json(),
                "digest": digest_pixels(image),
            }
        )
    table = INTERACTION_SCENES.frame(rows)
    table.write_parquet(folder / f"{split}-00000.parquet")
