"""What the sections of the report share: looking up published versions, and inline images."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hoi_assets.store.versions import Published, Store

if TYPE_CHECKING:
    from PIL import Image

# Longest side of an inline picture.
MOST_PX = 512

# By asset, its version in force, or its versions by partition; None or absent without one.
Parents = Mapping[str, "Published | dict[str, Published] | None"]


def find_version(parents: Parents, asset: str) -> Published | None:
    """The version of an asset without partitions; None where there is none."""
    found = parents.get(asset)
    return found if isinstance(found, Published) else None


def find_partitions(parents: Parents, asset: str) -> dict[str, Published]:
    """The versions of a partitioned asset, by partition."""
    found = parents.get(asset)
    return found if isinstance(found, dict) else {}


def find_versions(parents: Parents, asset: str) -> list[Published]:
    """Every version of an asset, partitioned or not."""
    found = parents.get(asset)
    if isinstance(found, Published):
        return [found]
    return list((found or {}).values())


def first_row(published: Published | None, table: str) -> dict[str, Any]:
    """The first row of a table of that version; empty without a version."""
    return {} if published is None else published.table(table).row(0, named=True)


def with_images(store: Store, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its image as `src`: a WebP data URI."""
    return [row | {"src": webp_uri(store.images.open(row["pixels"]))} for row in rows]


def png_uri(data: bytes) -> str:
    """A PNG file as data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def webp_uri(image: "Image.Image", most_px: int = MOST_PX) -> str:
    """A WebP file as data URI, scaled down to `most_px` a side; transparency is kept."""
    small = image.copy()
    small.thumbnail((most_px, most_px))
    buffer = io.BytesIO()
    lossless = small.mode == "RGBA"
    small.save(buffer, format="WEBP", quality=82, method=4, lossless=lossless)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
