"""Values that an asset's function may put in its metadata, and their plain JSON form.

No Dagster here: `asset.py` turns the JSON into Dagster's metadata.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image as PILImage

from hoi_assets.errors import HoiError

IMAGE_BYTES_CAP = 400_000  # a picture sits in Dagster's event log: one row of a SQLite database
TABLE_ROWS_CAP = 50


@dataclass(frozen=True)
class Markdown:
    """Text shown as Markdown; `<path>` becomes the published version's folder.

    What comes from outside, as prompts do, goes through `as_text` first.
    """

    text: str


@dataclass(frozen=True)
class Image:
    """A picture as an encoded file; one over the cap is scaled down when it is shown."""

    data: bytes
    mime: str = "image/png"
    caption: str = ""

    @classmethod
    def of(cls, picture: PILImage.Image) -> "Image":
        """Encode a PIL picture as PNG."""
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, format="PNG")
        return cls(buffer.getvalue(), "image/png")

    def within(self, cap: int = IMAGE_BYTES_CAP) -> "Image":
        """This picture in at most `cap` bytes: as it is, or as JPEG, halved until it fits.

        Raises:
            HoiError: the bytes are not a picture.
        """
        if len(self.data) <= cap:
            return self
        try:
            picture = PILImage.open(io.BytesIO(self.data)).convert("RGB")
        except OSError as error:
            raise HoiError(
                f"a picture for the metadata ({len(self.data)} bytes, {self.mime}) is unreadable",
                "give encoded PNG, JPEG or WebP bytes, or use Image.of(PIL picture)",
            ) from error
        while True:
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=85)
            if buffer.tell() <= cap or max(picture.size) <= 8:
                return Image(buffer.getvalue(), "image/jpeg", self.caption)
            picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))

    def markdown(self, alt: str) -> str:
        """Markdown that shows the picture inline."""
        small = self.within()
        code = base64.b64encode(small.data).decode("ascii")
        below = f"\n\n{self.caption}" if self.caption else ""
        return f"![{alt}](data:{small.mime};base64,{code}){below}"


@dataclass(frozen=True)
class Table:
    """Rows shown as a table; at most `TABLE_ROWS_CAP` of them."""

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Page:
    """A page of the version, e.g. "report.html"; shown as a link once it is published."""

    file: str


Value = str | int | float | bool | None | Markdown | Image | Table | Page


def as_text(value: str) -> str:
    """Markdown that shows the value as it is: no HTML, picture, link or line of its own.

    >>> as_text("a <b>hand</b> ![x](http://example.com)")
    'a &lt;b>hand&lt;/b> !\\\\[x\\\\](http://example.com)'
    """
    value = " ".join(value.replace("&", "&amp;").split())
    for sign in "\\[]`":
        value = value.replace(sign, f"\\{sign}")
    return value.replace("<", "&lt;")


def table_markdown(rows: Sequence[Mapping[str, Any]], cap: int = TABLE_ROWS_CAP) -> str:
    """Rows as a Markdown table; the columns are those of the first row."""
    if not rows:
        return "(no rows)"
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows[:cap]]
    if len(rows) > cap:
        lines.append(f"\n… and {len(rows) - cap} more")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return as_text(str("" if value is None else value)).replace("|", "\\|")


def plain(name: str, value: Value) -> dict[str, Any]:
    """`{"kind": markdown|page|value, "value": …}`, safe for JSON.

    Raises:
        HoiError: a value of another type.
    """
    if isinstance(value, Markdown):
        return {"kind": "markdown", "value": value.text}
    if isinstance(value, Image):
        return {"kind": "markdown", "value": value.markdown(name)}
    if isinstance(value, Table):
        return {"kind": "markdown", "value": table_markdown(value.rows)}
    if isinstance(value, Page):
        return {"kind": "page", "value": value.file}
    if value is None or isinstance(value, str | int | float | bool):
        return {"kind": "value", "value": value}
    raise HoiError(
        f"metadata {name!r} is a {type(value).__name__}",
        "give str, int, float, bool, Markdown, Image, Table or Page",
    )
