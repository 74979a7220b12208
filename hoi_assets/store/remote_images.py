"""The images of a home in a bucket: what is in the mirror is in the bucket too."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.store.bucket import in_parallel
from hoi_assets.store.disk import replace_bytes
from hoi_assets.store.images import FORMATS, ImageStore
from hoi_assets.store.integrity import Damaged
from hoi_assets.store.remote_home import RemoteHome

if TYPE_CHECKING:
    from PIL import Image


class RemoteImageStore(ImageStore):
    """As `ImageStore`; an image is uploaded when it is put, and copied here when first read."""

    def __init__(self, remote: RemoteHome, picture_format: str) -> None:
        super().__init__(remote.mirror / "images", remote.mirror / "staging", picture_format)
        self._remote = remote

    def path(self, digest: str) -> Path:
        """Where the image is; copied from the bucket where it is there and not here."""
        path = super().path(digest)  # checks the id
        if path.exists():
            os.utime(path)  # what is used stays in the cache
            return path
        return next((one for one in self._paths(digest) if self._remote.fetch_object(one)), path)

    def open(self, digest: str) -> "Image.Image":
        """As of `ImageStore`; a copy that was damaged here is fetched again."""
        was_here = self._local(digest).exists()
        try:
            return super().open(digest)
        except Damaged as error:
            path = self._local(digest)
            self._remote.cache.drop(path)
            if was_here:
                return super().open(digest)
            raise Damaged(
                f"the object {self._remote.address(path)} was altered: {error.what}",
                "delete that object and materialise the asset that draws it with `hoi run "
                "--force`: it is redrawn from its row",
            ) from error

    def missing(self, digests: Iterable[str]) -> list[str]:
        """As of `ImageStore`; nothing is copied."""
        absent = [one for one in dict.fromkeys(digests) if not self._local(one).exists()]
        there = in_parallel(self._is_there, absent)
        return [one for one, found in zip(absent, there, strict=True) if not found]

    def _is_there(self, digest: str) -> bool:
        return any(self._remote.bucket.exists(self._remote.key(p)) for p in self._paths(digest))

    def _paths(self, digest: str) -> list[Path]:
        """The own format's first."""
        own = self._file(digest, self.picture_format)
        return [own, *(self._file(digest, name) for name in FORMATS if name != self.picture_format)]

    def _write(self, path: Path, data: bytes) -> None:
        self._remote.bucket.put_content(self._remote.key(path), data)
        replace_bytes(path, data, self._temporary, durable=False, mode=0o444)
        self._remote.cache.grew(len(data))
