"""Damage as disks and people do it."""

from pathlib import Path


def flip_bit(data: bytes) -> bytes:
    """The same bytes, one bit in the middle flipped."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def damage(path: Path) -> None:
    """Flip one bit of a file, which may be read-only."""
    path.chmod(0o644)
    path.write_bytes(flip_bit(path.read_bytes()))
