"""Content-addressed images: a picture's name is the digest of its pixels."""

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


class ImageStore:
    """PNG files `<folder>/<aa>/<pixel digest>.png`, each written once.

    Safe for several processes: writes are atomic and the same pixels give the same file.

    Args:
        folder: where the images are.
        temporary: a folder on the same file system for files being written.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
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
        return self.folder / digest[:2] / f"{digest}.png"

    def put(self, image: "Image.Image") -> str:
        """Store `image` (converted to RGB) and return its pixel digest.

        An intact image of that digest is left alone; a damaged one is written anew.

        Raises:
            DiskFull: no space left.

        Example:
            >>> digest = store.images.put(image)  # doctest: +SKIP
        """
        from PIL import Image

        rgb = image if image.mode == "RGB" else image.convert("RGB")
        digest = digest_pixels(rgb)
        path = self.path(digest)
        if path.exists() and self._intact(digest):
            return digest
        # A bare copy: no colour profile or other metadata of the source gets into the file.
        bare = Image.frombytes("RGB", rgb.size, rgb.tobytes())
        data = io.BytesIO()
        # Run lengths alone: on such pictures both faster and smaller than the default strategy.
        bare.save(data, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        replace_bytes(path, data.getvalue(), self._temporary, durable=False, mode=0o444)
        self._unsynced.add(path)
        return digest

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
