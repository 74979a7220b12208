"""Colours that charts and contact sheets share; also those of the report."""

INK, SOFT, PAPER = "#1c2430", "#667085", "#ffffff"
