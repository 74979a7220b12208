"""Measurements at full size, for a GPU machine that is lent for a few minutes."""
