"""One client for OpenAI-compatible endpoints, one budget, one reply cache."""
