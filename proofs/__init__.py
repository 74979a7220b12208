"""Campaigns that try to break the platform; `python -m proofs` runs them and prints one table."""
