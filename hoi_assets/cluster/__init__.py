"""Batches computed by the workers of a Ray cluster. Only this package and the wiring know Ray."""
