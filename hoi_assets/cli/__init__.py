"""The command line, `hoi`."""
