"""Base prompts to detailed prompts: slot grammar or any OpenAI-compatible endpoint."""
