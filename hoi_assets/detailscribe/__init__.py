"""DetailScribe (arXiv 2504.08714) as a pure library."""
