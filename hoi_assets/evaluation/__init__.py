"""Metrics, scorecards, human ratings and agreement, and the evaluation report."""
