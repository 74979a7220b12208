"""SDXL: loading, sampling, light re-noising and LoRA training.

Nothing here imports torch at module level, so that keys and rows can be made without it.
"""
