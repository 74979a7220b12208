"""Assets of Prompt-Propose-Verify."""
