"""Verified hand-object-interaction image data, as a graph of versioned Dagster assets."""
