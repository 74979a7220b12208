"""The machine-readable mark of AI generation: IPTC `DigitalSourceType` in a picture's XMP.

The mark says how a picture came to be, in the terms of the IPTC NewsCodes
(http://cv.iptc.org/newscodes/digitalsourcetype/). Re-encoding drops metadata, so whatever writes a
picture for others marks it anew. The home's own content-addressed images are bare.
"""

import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError

if TYPE_CHECKING:
    from PIL import Image

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# Drawn by a model that was trained on pictures.
TRAINED = f"{VOCABULARY}trainedAlgorithmicMedia"
# Drawn by an algorithm that samples no pictures: renders of the tiny world.
ALGORITHMIC = f"{VOCABULARY}algorithmicMedia"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp"
FOUND = re.compile(rb"DigitalSourceType(?:=\"|>)\s*([^\"<\s]+)")


def xmp_packet(source_type: str = TRAINED) -> bytes:
    """The XMP packet that holds the mark and nothing else.

    Example:
        >>> b"trainedAlgorithmicMedia" in xmp_packet()
        True
    """
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


def mark_png(png: bytes, source_type: str = TRAINED) -> bytes:
    """A PNG file with the mark in place of any XMP it had; pixels are neither decoded nor changed.

    Raises:
        HoiError: the bytes are no whole PNG file.
    """
    if not png.startswith(PNG_SIGNATURE):
        raise HoiError("a picture to be marked is no PNG file", "store it anew as PNG")
    text = XMP_KEYWORD + b"\0\0\0\0\0" + xmp_packet(source_type)
    parts, place, marked = [PNG_SIGNATURE], len(PNG_SIGNATURE), False
    while place < len(png):
        head = png[place : place + 8]
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        chunk = png[place : place + 12 + length]
        place += 12 + length
        if kind == b"iTXt" and chunk[8:].startswith(XMP_KEYWORD + b"\0"):
            continue
        parts.append(chunk)
        if kind == b"IHDR":
            parts.append(_chunk(b"iTXt", text))
            marked = True
        if kind == b"IEND" and marked and place <= len(png):
            return b"".join(parts)
    raise HoiError("a picture to be marked is a PNG file cut short", "store it anew")


def encode_marked(
    image: "Image.Image", source_type: str = TRAINED, image_format: str = "PNG", **options: Any
) -> bytes:
    """A picture as a marked file.

    Args:
        image_format: PNG, JPEG or WEBP; options are those of Pillow's writer.

    Example:
        >>> from PIL import Image
        >>> read_mark(encode_marked(Image.new("RGB", (8, 8)), ALGORITHMIC, "WEBP")) == ALGORITHMIC
        True
    """
    from PIL import Image

    # A bare copy: no other metadata of the source gets into the file.
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    data = io.BytesIO()
    if image_format == "PNG":
        bare.save(data, format="PNG", **options)
        return mark_png(data.getvalue(), source_type)
    bare.save(data, format=image_format, xmp=xmp_packet(source_type), **options)
    return data.getvalue()


def read_mark(data: bytes) -> str | None:
    """The `DigitalSourceType` of a PNG, JPEG or WebP file; None where it has none.

    Example:
        >>> from PIL import Image
        >>> read_mark(encode_marked(Image.new("RGB", (8, 8)))) == TRAINED
        True
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        packet = image.info.get("xmp") or image.info.get(XMP_KEYWORD.decode()) or b""
    found = FOUND.search(packet.encode() if isinstance(packet, str) else packet)
    return None if found is None else found[1].decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
