"""Safetensors files whose bytes depend on their contents alone."""

import json
from pathlib import Path


def settle_header(path: Path) -> None:
    """Rewrite the header of a safetensors file with its metadata in sorted order.

    The library writes metadata in the order of a randomised hash map, so that equal files differ
    in their bytes from process to process whenever there are two entries or more.
    """
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header = {
        "__metadata__": dict(sorted(header.pop("__metadata__", {}).items())),
        **header,
    }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
