"""Baselines of DetailScribe, one module per method."""
