"""Assets of DetailScribe."""
