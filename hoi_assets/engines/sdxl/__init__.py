"""Stable Diffusion XL: loading, sampling, LoRA training."""
