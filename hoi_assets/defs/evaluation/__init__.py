"""Assets of the evaluation."""
