"""The outline lies where the map says, and nowhere else."""

import numpy as np
from PIL import Image, ImageDraw

from hoi_assets.map_overlay import HALO, LINE, outlined


def _map() -> Image.Image:
    drawn = Image.new("L", (32, 32), 10)
    ImageDraw.Draw(drawn).rectangle((4, 4, 11, 11), fill=250)
    return drawn


def test_the_outline_runs_round_the_defect_and_hides_little_else() -> None:
    image = Image.new("RGB", (128, 128), (90, 120, 150))
    pixels = np.asarray(outlined(image, _map(), 256)).astype(int)
    line = (pixels == LINE).all(axis=-1)
    rows, columns = np.nonzero(line)
    assert 24 <= rows.min() <= 36 and 88 <= rows.max() <= 104
    assert 24 <= columns.min() <= 36 and 88 <= columns.max() <= 104
    drawn = line | (pixels == HALO).all(axis=-1)
    assert 0 < drawn.mean() < 0.06
    assert (pixels[~drawn] == (90, 120, 150)).all()
    assert not drawn[60, 60]


def test_a_whole_picture_gets_no_outline() -> None:
    image = Image.new("RGB", (64, 64), (90, 120, 150))
    shown = outlined(image, Image.new("L", (32, 32), 120), 64)
    assert shown.tobytes() == image.tobytes()
