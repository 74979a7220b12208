"""The toy world: rendered scenes with exact truth, and the recipes of the tiny weights."""
