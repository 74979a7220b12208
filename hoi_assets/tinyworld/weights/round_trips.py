"""What an autoencoder loses: round trips of held-out renders, measured and drawn side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hoi_assets.progress import Log
from hoi_assets.tinyworld.weights import sdxl, vae, vae16
from hoi_assets.tinyworld.weights.card import read_card, write_card
from hoi_assets.tinyworld.weights.pictures import Pictures, as_images, read_pictures

SHEET_PAIRS = 12
PAIRS_A_ROW = 3
SCALE = 3
GAP_PX = 12
SHEET_QUALITY = 50


def compare_round_trips(
    folder: Path, present: Path, world: Path, sheet: Path | None = None, log: Log = print
) -> None:
    """Measure the autoencoder in `folder` on the held-out pictures of `world`, and the tiny SDXL's
    (in folder `present`) on the same ones; the card of the first states both.

    Args:
        sheet: picture to write: renders with a hand, each beside its round trip.

    Raises:
        HoiError: an autoencoder or the world is missing.
    """
    card, model = read_card(folder), vae16.stored(folder)
    _, held = read_pictures(world, card.split).halves()
    figures = {
        "": vae.measure(model, held.pixels),
        "present_vae_": vae.measure(sdxl.stored(present).vae, held.pixels),
    }
    for prefix, found in figures.items():
        log(f"{prefix or folder.name}: {len(held)} pictures, {found['psnr_db']:.2f} dB")
        card = card.with_quality(**{prefix + name: round(v, 5) for name, v in found.items()})
    write_card(folder, card)
    if sheet is not None:
        shown = with_hands(held, SHEET_PAIRS)
        drawn = vae.decode(model, vae.encode(model, shown.pixels)[0])
        pairs = list(zip(as_images(shown.pixels), as_images(drawn), strict=True))
        draw_pairs(pairs).save(sheet, "WEBP", quality=SHEET_QUALITY, method=6)


def with_hands(pictures: Pictures, count: int) -> Pictures:
    """`count` pictures that hold a hand, spread evenly over all of them."""
    hands = [i for i, row in enumerate(pictures.rows) if row["category"] is not None]
    return pictures.take([hands[n * len(hands) // count] for n in range(min(count, len(hands)))])


def draw_pairs(pairs: Sequence[tuple[Any, Any]]) -> Image.Image:
    """Pairs of equally large pictures on white, three times as large, three pairs a row."""
    width, height = (SCALE * side for side in pairs[0][0].size)
    rows = -(-len(pairs) // PAIRS_A_ROW)
    step_x, step_y = 2 * width + GAP_PX, height + GAP_PX
    sheet = Image.new("RGB", (PAIRS_A_ROW * step_x + GAP_PX, rows * step_y + GAP_PX), "white")
    for number, pair in enumerate(pairs):
        row, column = divmod(number, PAIRS_A_ROW)
        for place, image in enumerate(pair):
            large = image.resize((width, height), Image.Resampling.BICUBIC)
            x = GAP_PX + column * step_x + place * width
            sheet.paste(large, (x, GAP_PX + row * step_y))
    return sheet
