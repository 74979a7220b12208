"""The controlled English of the built-in prompter and decomposer, which the tiny world can draw."""
