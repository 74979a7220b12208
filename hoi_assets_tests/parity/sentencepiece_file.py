"""Writes a SentencePiece model as T5's repositories have it, without the library of that name."""

from collections.abc import Sequence
from pathlib import Path

NORMAL, UNKNOWN, CONTROL = 1, 2, 3
UNIGRAM = 1


def write_sentencepiece(path: Path, vocabulary: Sequence[tuple[str, float]]) -> None:
    """Write the unigram model of `vocabulary`, (piece, score) in the order of the ids.

    The file is a protocol buffer: a field is its number and type, then its length and content.
    """
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN}
    data = b""
    for piece, score in vocabulary:
        text = piece.encode("utf-8")
        body = _sized(1, text) + _float(2, score) + _number(3, kinds.get(piece, NORMAL))
        data += _sized(1, body)
    ids = {name: index for index, (name, _) in enumerate(vocabulary)}
    trainer = _number(3, UNIGRAM) + _number(4, len(vocabulary))
    trainer += _number(40, ids["<unk>"]) + _number(42, ids["</s>"]) + _number(43, ids["<pad>"])
    normalizer = _sized(1, b"identity") + _number(3, 1) + _number(4, 1) + _number(5, 1)
    path.write_bytes(data + _sized(2, trainer) + _sized(3, normalizer))


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _sized(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float(field: int, value: float) -> bytes:
    import struct

    return _varint(field << 3 | 5) + struct.pack("<f", value)
