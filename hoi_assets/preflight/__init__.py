"""Before a run: what it will make and cost (`plan`), and whether it can (`doctor`)."""
