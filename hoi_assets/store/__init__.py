"""Versions, content-addressed images, the ledger and the derived catalogue."""
