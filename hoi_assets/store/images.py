"""Content-addressed images: a picture's name is the digest of its pixels, whatever its format."""

import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.store.disk import replace_bytes, sync, writing
from hoi_assets.store.integrity import Damaged

if TYPE_CHECKING:
    from PIL import Image

DIGEST = re.compile(r"[0-9a-f]{64}")
PNG, WEBP = "png", "webp"
FORMATS = (PNG, WEBP)
# libwebp's lossless settings, see docs/full-size.md.
WEBP_EFFORT, WEBP_METHOD = 20, 1


def encode_picture(image: "Image.Image", picture_format: str = PNG) -> bytes:
    """The pixels of an RGB image in a lossless file, without any metadata; the same pixels give
    the same bytes.

    Args:
        picture_format: png, or webp: smaller, and slower to write.
    """
    from PIL import Image

    # A bare copy: no colour profile or other metadata of the source gets into the file.
    bare = Image.frombytes("RGB", image.size, image.tobytes())
    data = io.BytesIO()
    if picture_format == WEBP:
        bare.save(data, format="WEBP", lossless=True, quality=WEBP_EFFORT, method=WEBP_METHOD)
    else:
        # Run lengths alone: on such pictures both faster and smaller than the default strategy.
        bare.save(data, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return data.getvalue()


class ImageStore:
    """Files `<folder>/<aa>/<pixel digest>.png`, each written once; or `.webp`.

    Safe for several processes: writes are atomic and the same pixels give the same file. Both
    formats are read, whichever is written.

    Args:
        folder: where the images are.
        temporary: a folder on the same file system for files being written.
        picture_format: of new files, png or webp; both are lossless.
    """

    def __init__(self, folder: Path, temporary: Path, picture_format: str = PNG) -> None:
        self.folder = folder
        self.picture_format = picture_format
        self._temporary = temporary
        self._unsynced: set[Path] = set()

    def path(self, digest: str) -> Path:
        """Where the image of that pixel digest is, or would be.

        Example:
            >>> store.images.path("ab12...")  # doctest: +SKIP
            PosixPath('.../images/ab/ab12....png')
        """
        if not DIGEST.fullmatch(digest):
            raise HoiError(
                f"{digest!r} is not an image id",
                "give the 64 hex digits of a pixel digest, as tables name images",
            )
        return self._local(digest)

    def _local(self, digest: str) -> Path:
        own = self._file(digest, self.picture_format)
        if own.exists():
            return own
        others = (self._file(digest, name) for name in FORMATS if name != self.picture_format)
        return next((path for path in others if path.exists()), own)

    def _file(self, digest: str, picture_format: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.{picture_format}"

    def put(self, image: "Image.Image") -> str:
        """Store `image` (converted to RGB) and return its pixel digest.

        An intact image of that digest is left alone; a damaged one is written anew.

        Raises:
            DiskFull: no space left.

        Example:
            >>> digest = store.images.put(image)  # doctest: +SKIP
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        digest = digest_pixels(rgb)
        path = self._local(digest)
        if path.exists() and self._intact(digest):
            return digest
        # A damaged file is replaced in its own format.
        data = encode_picture(rgb, path.suffix.removeprefix("."))
        self._write(path, data)
        return digest

    def _write(self, path: Path, data: bytes) -> None:
        replace_bytes(path, data, self._temporary, durable=False, mode=0o444)
        self._unsynced.add(path)

    def png_bytes(self, digest: str) -> bytes:
        """The image of that digest as a PNG file: the same bytes in whichever format it is stored.

        Raises:
            HoiError, Damaged: as `open`.
        """
        path = self.path(digest)
        if path.suffix == f".{PNG}" and path.exists():
            return path.read_bytes()
        return encode_picture(self.open(digest))

    def open(self, digest: str) -> "Image.Image":
        """The image of that digest, RGB, decoded and checked against the digest.

        Raises:
            HoiError: missing.
            Damaged: undecodable, or its pixels do not match its name.

        Example:
            >>> store.images.open(row["image"]).size  # doctest: +SKIP
            (128, 128)
        """
        from PIL import Image

        path = self.path(digest)
        if not path.exists():
            raise HoiError(
                f"image {digest} is not in {self.folder}",
                "materialise the asset that draws it with `hoi run --force`; missing images are "
                "redrawn",
            )
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise self._damaged(path, str(error)) from error
        if digest_pixels(image) != digest:
            raise self._damaged(path, "its pixels do not match its name")
        return image

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of `digests` that are absent or empty on disk; order kept, each once.

        Example:
            >>> store.images.missing(table["image"])  # doctest: +SKIP
            []
        """
        absent = []
        for digest in dict.fromkeys(digests):
            path = self.path(digest)
            if not path.exists() or path.stat().st_size == 0:
                absent.append(digest)
        return absent

    def flush(self) -> None:
        """fsync what this process put since the last call; publishing a version does so first."""
        paths, self._unsynced = self._unsynced, set()
        for path in paths:
            if path.exists():
                with writing(path):
                    sync(path)
        for folder in {path.parent for path in paths}:
            if folder.exists():
                sync(folder)

    def _intact(self, digest: str) -> bool:
        try:
            self.open(digest)
        except HoiError:
            return False
        return True

    def _damaged(self, path: Path, why: str) -> Damaged:
        return Damaged(
            f"image {path} is damaged: {why}",
            "delete that file and materialise the asset that draws it with `hoi run --force`: it "
            "is redrawn from its row",
        )
