"""Text from outside: what is no plain text, and names of files as text."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

BYTE_ORDER_MARK = "\ufeff"


def text_problem(text: str) -> str | None:
    """The first character that is no text, as `code: detail`; None where there is none.

    Refused are control characters (tabs and line ends too), lone surrogates, line and paragraph
    separators, a byte order mark and what Unicode calls noncharacters.

    >>> text_problem("a red\\nball")
    'control_character: U+000A at character 6'
    """
    for place, sign in enumerate(text, start=1):
        # U+FFFE and U+FFFF, and so in each plane, are noncharacters.
        if (
            unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")
            or sign == BYTE_ORDER_MARK
            or ord(sign) & 0xFFFE == 0xFFFE
        ):
            return f"control_character: U+{ord(sign):04X} at character {place}"
    return None


def file_name(path: PurePath) -> str:
    """The name of a file, the same in every locale; bytes that are not UTF-8 are surrogates."""
    return os.fsencode(path.name).decode("utf-8", "surrogateescape")


def printable_name(name: str) -> str:
    """A name of `file_name` in characters that can be stored and printed.

    Different names stay different: backslashes are doubled.

    >>> printable_name("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    return "".join(_printable(sign) for sign in name)


def _printable(sign: str) -> str:
    if sign == "\\":
        return "\\\\"
    if text_problem(sign) is None:
        return sign
    # A surrogate stands for a byte of the name.
    code = ord(sign) - 0xDC00 if 0xDC80 <= ord(sign) <= 0xDCFF else ord(sign)
    return f"\\x{code:02x}" if sign.isascii() or code != ord(sign) else f"\\u{code:04x}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def shown_bytes(count: float) -> str:
    """A number of bytes for people, in powers of ten.

    >>> shown_bytes(950), shown_bytes(1_640_000), shown_bytes(27.4e9)
    ('950 bytes', '1.64 MB', '27.4 GB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
