"""The small models of the engines' tests as fixtures."""

from hoi_assets_tests.engines.small_judges import clip_folder
from hoi_assets_tests.engines.small_sdxl import loaded, sampling, sdxl_folder

__all__ = ["clip_folder", "loaded", "sampling", "sdxl_folder"]
