"""The drawn images' cache: a picture of one colour is blank, whenever it was drawn."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hoi_assets.engines.image_cache import get_or_generate
from hoi_assets.engines.image_writing import ENVIRONMENT, KIND, NewImage
from hoi_assets.pictures import channel_deviation
from hoi_assets.store.versions import Store

RED = Image.new("RGB", (32, 32), (250, 10, 10))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
IMAGES = {"red": RED, "noise": NOISE}
FACTS = dict.fromkeys(ENVIRONMENT, 1)


def drawn(keys: Sequence[str]) -> Iterator[NewImage]:
    for key in keys:
        yield NewImage(key, 0, IMAGES[key], None, FACTS)


def deviations(store: Store) -> dict[str, float | None]:
    found = get_or_generate(
        store, {key: key for key in IMAGES}, drawn, 1, "test", lambda line: None
    )
    return {key: image.pixel_std for key, image in found.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_a_picture_of_one_colour_has_no_deviation(store: Store) -> None:
    found = deviations(store)
    assert found == {"red": 0.0, "noise": channel_deviation(NOISE)}
    assert deviations(store) == found


def test_pictures_cached_by_an_earlier_release_are_measured_again(store: Store) -> None:
    new = Store(store.home.parent / "other")
    old = {
        key: {
            "pixels": store.images.put(image),
            "pixel_std": round(float(np.asarray(image).std()), 3),
            "environment": {"slot": 0, **FACTS},
        }
        for key, image in IMAGES.items()
    }
    assert old["red"]["pixel_std"] > 100
    store.ledger.put(KIND, old)
    assert deviations(store) == deviations(new)


def test_a_drawing_in_one_channel_is_not_blank() -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:, 0] = 200
    assert channel_deviation(Image.fromarray(pixels)) == 100.0
    grey = Image.fromarray(pixels[:, :, 0])
    assert channel_deviation(grey) == 100.0
