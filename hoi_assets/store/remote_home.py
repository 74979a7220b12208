"""A home in a bucket, and its mirror: the folder with this machine's copies.

The mirror has the layout of a home, and a path in it is the key of the object that it is a copy of.
What the mirror holds of published versions and of images is in the bucket too, so that any of it
may be deleted; ledger, catalogue, staging, latents and unfinished trainings are of this machine
alone. See docs/object-storage.md.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hoi_assets.hashing import digest_file
from hoi_assets.settings import mirror_folder
from hoi_assets.store.bucket import Bucket, Listed, etag_of, in_parallel
from hoi_assets.store.bucket_locks import BucketLocks
from hoi_assets.store.disk import replace_bytes, temporary_path, writing
from hoi_assets.store.integrity import Damaged, is_part, manifest_bytes, read_manifest
from hoi_assets.store.mirror_cache import MirrorCache

POINTERS = "pointers"
# Evidence that holds pictures: read where one asset is shown.
SHOWN_ONLY = ".metadata.json"


class RemoteHome:
    """See the module.

    Args:
        url: as of `Bucket`.

    Raises:
        HoiError: not the URL of a bucket.
    """

    def __init__(self, url: str) -> None:
        self.bucket = Bucket(url)
        self.mirror = mirror_folder(self.bucket.url)
        self.locks = BucketLocks(self.bucket)
        self.cache = MirrorCache(self.mirror)
        self._temporary = self.mirror / "staging"
        self._moment = threading.local()
        with writing(self.mirror):
            self._temporary.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[type["RemoteHome"], tuple[str]]:
        return RemoteHome, (self.bucket.url,)

    def key(self, path: Path) -> str:
        """The key of the object that a path in the mirror is a copy of."""
        return path.relative_to(self.mirror).as_posix()

    def address(self, path: Path) -> str:
        """The URL of that object."""
        return f"{self.bucket.url}/{self.key(path)}"

    @contextmanager
    def moment(self, *folders: str) -> Iterator[None]:
        """Inside, this thread reads all small files below these folders as they are at the start;
        what did not change since they were read last is not sent again."""
        outer: dict[str, dict[Path, bytes]] = getattr(self._moment, "found", {})
        new = {
            one: self.pull_below(self.mirror / one, lambda key: not key.endswith(SHOWN_ONLY))
            for one in folders
            if one not in outer
        }
        self._moment.found = {**outer, **new}
        try:
            yield
        finally:
            self._moment.found = outer

    def _seen(self, path: Path) -> dict[Path, bytes] | None:
        """What this thread's moment holds of the path's folder; None where there is none."""
        found: dict[str, dict[Path, bytes]] = getattr(self._moment, "found", {})
        key = self.key(path)
        return None if key.endswith(SHOWN_ONLY) else found.get(key.partition("/")[0])

    def paths_below(self, folder: Path) -> list[Path]:
        """Where copies of all files below a folder are, or would be."""
        seen = self._seen(folder)
        if seen is not None:
            return list(seen)
        return [self.mirror / one.key for one in self.bucket.list(f"{self.key(folder)}/")]

    def pull(self, path: Path) -> bytes | None:
        """Read a small file as it is in the bucket now; None where it is not. The copy is renewed.

        Returns what was read: the copy may be another process's by then.
        """
        seen = self._seen(path)
        if seen is not None:
            return seen.get(path)
        try:
            known: bytes | None = path.read_bytes()
        except FileNotFoundError:
            known = None
        found = self.bucket.get(self.key(path), known)
        if found is None:
            path.unlink(missing_ok=True)
            return None
        if found.data != known:
            replace_bytes(path, found.data, self._temporary, durable=False, mode=0o644)
        return found.data

    def pull_below(self, folder: Path, wanted: Callable[[str], bool]) -> dict[Path, bytes]:
        """`pull` of all files below a folder whose keys are wanted, with one question for all that
        did not change."""

        def one(listed: Listed) -> tuple[Path, bytes | None]:
            path = self.mirror / listed.key
            with suppress(FileNotFoundError):
                known = path.read_bytes()
                if etag_of(known) == listed.etag:
                    return path, known
            return path, self.pull(path)

        listed = [one for one in self.bucket.list(f"{self.key(folder)}/") if wanted(one.key)]
        return {path: data for path, data in in_parallel(one, listed) if data is not None}

    def push(self, path: Path, data: bytes) -> None:
        """Write a small file, in the bucket first."""
        self.bucket.put(self.key(path), data)
        seen = self._seen(path)
        if seen is not None:
            seen[path] = data
        replace_bytes(path, data, self._temporary, durable=False, mode=0o644)

    def push_files(self, paths: Iterable[Path]) -> None:
        """Upload files of the mirror as they are now."""
        in_parallel(lambda path: self.bucket.upload(self.key(path), path, digest_file(path)), paths)

    def upload(
        self, target: Path, source: Path, digests: Mapping[str, str], manifest: Path
    ) -> None:
        """Upload a folder's files, and last its manifest.

        The manifest is written anew although it is there: its age is that of the folder.

        Args:
            target: the folder's path in the mirror; `source` is where its files are.
            digests: of its files by name.
        """

        def one(name: str) -> None:
            self.bucket.upload(self.key(target / name), source / name, digests[name])

        in_parallel(one, digests)
        self.bucket.put(self.key(manifest), manifest_bytes(digests))

    def fetch(
        self, folder: Path, manifest: Path, parts: Collection[str] | None
    ) -> dict[str, str] | None:
        """Copy files of a folder to the mirror, unless they are there.

        Args:
            manifest: the folder's manifest.
            parts: files and sub-folders; all where None.

        Returns:
            The manifest; None where there is none, and so no such folder in the bucket.

        Raises:
            Damaged: an object is not what was uploaded, or is missing.
        """
        digests = read_manifest(manifest)
        if digests is None:
            if self.pull(manifest) is None:
                return None
            digests = read_manifest(manifest)
            if digests is None:
                raise self._damaged(manifest, "it is no manifest")
        own = digests
        absent = [name for name in own if is_part(name, parts) and not (folder / name).exists()]
        in_parallel(lambda name: self._fetch_file(folder / name, own[name]), absent)
        if folder.is_dir():
            os.utime(folder)  # what is used stays in the cache
        return digests

    def _fetch_file(self, path: Path, digest: str) -> None:
        if not self.fetch_object(path, digest):
            raise self._damaged(path, "it is missing")

    def fetch_object(self, path: Path, digest: str | None = None) -> bool:
        """Copy one object to the mirror; False where there is none.

        Raises:
            Damaged: it is not of that digest.
        """
        partial = temporary_path(self._temporary)
        with writing(path):
            try:
                if not self.bucket.download(self.key(path), partial):
                    return False
                if digest is not None and digest_file(partial) != digest:
                    raise self._damaged(path, "it is not the file that was written")
                partial.chmod(0o444)
                size = partial.stat().st_size
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self.cache.grew(size)
        return True

    def fill(self, target: Path, source: Path, digests: Mapping[str, str]) -> None:
        """Move files to a folder of the mirror that may hold copies of some; those stay."""
        if target.exists():
            for name, digest in digests.items():
                own = target / name
                if not own.exists() or digest_file(own) != digest:
                    own.parent.mkdir(parents=True, exist_ok=True)
                    (source / name).replace(own)

    def is_whole(self, folder: Path, manifest: Path) -> bool:
        """Whether all files that the manifest names are in the bucket."""
        found = read_manifest(manifest)
        if found is None or not self.bucket.exists(self.key(manifest)):
            if self.pull(manifest) is None:
                return False
            found = read_manifest(manifest)
        prefix = f"{self.key(folder)}/"
        there = {one.key.removeprefix(prefix) for one in self.bucket.list(prefix)}
        return found is not None and set(found) <= there

    def remove(self, folder: Path, manifest: Path) -> None:
        """Remove a folder with a manifest, here and in the bucket: first the manifest, without
        which nobody reads the files."""
        self.bucket.delete([self.key(manifest)])
        self.bucket.delete([one.key for one in self.bucket.list(f"{self.key(folder)}/")])
        self.forget(folder, manifest)

    def forget(self, folder: Path, manifest: Path) -> None:
        """Remove the copies of a folder and its manifest."""
        self.cache.drop(folder)
        manifest.unlink(missing_ok=True)

    def _damaged(self, path: Path, why: str) -> Damaged:
        return Damaged(
            f"the object {self.address(path)} was altered: {why}",
            "restore it from a copy (a bucket with versioning has one); or delete it and make it "
            "again with `hoi run --force`, which uploads it anew",
        )
