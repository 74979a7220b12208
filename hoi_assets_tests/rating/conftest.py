"""Studies of small pictures by methods whose names appear nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import Mode
from hoi_assets.rating.study_making import StudyImage, make_study

METHODS = ("zephyr", "quartz")
PROMPTS = 12


def picture(number: int, size: int = 8) -> Image.Image:
    """A picture that only that number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def offers(folder: Path, prompts: int = PROMPTS, size: int = 8) -> list[StudyImage]:
    """One picture of each method for each prompt, as files."""
    made = []
    for number in range(prompts):
        for place, method in enumerate(METHODS):
            path = folder / f"{method}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(2 * number + place, size).save(path)
            scenario = ("functional", "compositional")[number % 2]
            made.append(StudyImage(f"hand {number} holds a cup", method, path, scenario=scenario))
    return made


def study_of(folder: Path, mode: Mode, prompts: int = PROMPTS, repeat_share: float = 0.0) -> Path:
    """A study below `folder`, ready for raters anna and ben."""
    place = folder / "study"
    make_study(place, mode, offers(folder / "drawn", prompts), seed=3, repeat_share=repeat_share)
    return place


@pytest.fixture
def pairwise(tmp_path: Path) -> Path:
    return study_of(tmp_path, "pairwise")


def tokens(folder: Path, *raters: str) -> list[str]:
    """The path `/r/{token}/` of each rater's new link."""
    return ["/" + link.split("/", 3)[3] for link in make_links(folder, raters).values()]
