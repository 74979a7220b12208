"""Verifier, metrics, examiner and statistics."""
