"""Prompt-Propose-Verify (arXiv 2312.15247) as a pure library."""
