"""Draws a defect map over its picture: an outline where the picture is likely defective."""

import numpy as np
from PIL import Image, ImageFilter

THRESHOLD = 128
# Light within dark, so that it shows on any ground.
LINE, HALO = (255, 90, 30), (20, 20, 20)
OPAQUE = (255,)
LINE_SHARE = 1 / 90


def outlined(image: Image.Image, defect_map: Image.Image, side: int = 256) -> Image.Image:
    """`image` at `side` pixels with an outline round what the map says is defective.

    Args:
        defect_map: grey picture of any size, 0 to 255 for the probability 0 to 1.

    Returns:
        RGB; only enlarged where no cell reaches one half.
    """
    shown = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    layer = outline_layer(defect_map, side)
    shown.paste(layer, mask=layer.getchannel("A"))
    return shown


def outline_layer(defect_map: Image.Image, side: int = 256) -> Image.Image:
    """The outline alone: RGBA of `side` pixels, transparent elsewhere."""
    smooth = defect_map.convert("L").resize((side, side), Image.Resampling.BILINEAR)
    inside = smooth.point(lambda value: 255 if value >= THRESHOLD else 0)
    width = max(1, round(side * LINE_SHARE))
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[_ring(inside, 2 * width)] = HALO + OPAQUE
    pixels[_ring(inside, width)] = LINE + OPAQUE
    return Image.fromarray(pixels)


def _ring(inside: Image.Image, width: int) -> np.ndarray:
    """Pixels within `width` of the border of a black and white picture, on either side."""
    size = 2 * width + 1
    grown, shrunk = (inside.filter(f(size)) for f in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return np.asarray(grown) != np.asarray(shrunk)
