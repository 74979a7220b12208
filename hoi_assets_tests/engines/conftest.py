"""The small models of these tests as fixtures."""

from hoi_assets_tests.engines.small_judges import (
    clip_folder,
    examiner_folder,
    image_reward_folder,
    vilt_folder,
)
from hoi_assets_tests.engines.small_sdxl import loaded, sampling, sdxl_folder

__all__ = [
    "clip_folder",
    "examiner_folder",
    "image_reward_folder",
    "loaded",
    "sampling",
    "sdxl_folder",
    "vilt_folder",
]
