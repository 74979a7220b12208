"""Recipes of the tiny weights in `data/models/tiny`: the libraries' classes, made small."""
