"""Assets that measure."""
