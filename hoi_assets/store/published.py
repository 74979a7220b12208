"""One published version: its record and its content."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_files, digest_folder, files_below
from hoi_assets.store.integrity import Damaged, first_difference, read_manifest
from hoi_assets.store.places import UNPARTITIONED, manifest_file, place_name, version_folder
from hoi_assets.store.remote_home import RemoteHome

if TYPE_CHECKING:
    import polars as pl

VERSION_DIGITS = 16


class NotStored(HoiError):
    """A version that the bucket does not hold."""


@dataclass(frozen=True)
class Published:
    """One version in the store. What its methods return is what was published: files that were
    changed since are refused.

    Attributes:
        version: 16 hex digits, the hash of the content.
        path: folder of its files; of a home in a bucket, of the copies of those that were read.
        inputs: what it was made from; parents as {"asset" or "asset/partition": version}.
        parents: versions it was made from that `inputs` does not name; the same form.
        remote: the home in a bucket; None where it is a folder.
        run_id: the run that published it.
        published_at: ISO 8601, UTC.
    """

    asset: str
    partition: str | None
    version: str
    path: Path
    inputs: dict[str, Any]
    run_id: str | None
    published_at: str
    parents: dict[str, str] = field(default_factory=dict)
    remote: RemoteHome | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """`asset` or `asset/partition`, as `inputs` name parents."""
        return place_name(self.asset, self.partition)

    def file(self, name: str) -> Path:
        """Path of a file or folder of this version, checked against the version's name.

        Raises:
            Damaged: it is not what was published.
            HoiError: there is no such file, or the version was pruned.

        Example:
            >>> published.file("lora/pytorch_lora_weights.safetensors")  # doctest: +SKIP
        """
        if self.remote is not None or self.path.is_dir():
            self.verify([name])
        path = self.path / name
        if not path.exists():
            here = ", ".join(self.names()[:10])
            raise HoiError(
                f"{self.name} version {self.version} has no {name!r}; it has: {here or 'nothing'}",
                f"materialise {self.name} again" if not here else "name one of these",
            )
        return path

    def tables(self) -> list[Path]:
        """Paths of its tables, `*.parquet`, sorted. Empty where the version was pruned.

        Raises:
            Damaged: one of them is not what was published, or a file is missing or was added.

        Example:
            >>> store.require("hoi_dataset").tables()  # doctest: +SKIP
            [PosixPath('.../rows.parquet'), PosixPath('.../summary.parquet')]
        """
        names = [one for one in self.names() if "/" not in one and one.endswith(".parquet")]
        if names or (self.remote is None and self.path.is_dir()):
            self.verify(names)
        return [self.path / name for name in names]

    def names(self) -> list[str]:
        """Names of all its files, sorted; empty where the version was pruned.

        Example:
            >>> store.require("verifier").names()  # doctest: +SKIP
            ['summary.parquet', 'thresholds.json']
        """
        if self.remote is None:
            return [name for name, _ in files_below(self.path)]
        return sorted(self.remote.fetch(self.path, manifest_file(self.path), ()) or ())

    def is_stored(self) -> bool:
        """Whether its files are there: it was not pruned.

        Example:
            >>> store.require("verifier").is_stored()  # doctest: +SKIP
            True
        """
        if self.remote is None:
            return self.path.is_dir()
        return self.remote.is_whole(self.path, manifest_file(self.path))

    def address(self, name: str) -> str:
        """The path of a file or folder of this version; where it is in a bucket, the URL.

        Raises:
            Damaged, HoiError: as `file`, of a home that is a folder.
        """
        if self.remote is None:
            return str(self.file(name))
        return self.remote.address(self.path / name)

    def table(self, name: str) -> "pl.DataFrame":
        """The table `<name>.parquet`. Raises as `file`.

        Example:
            >>> store.require("hoi_dataset").table("rows")  # doctest: +SKIP
        """
        import polars as pl

        from hoi_assets.store.tables import with_current_names

        return with_current_names(pl.read_parquet(self.file(f"{name}.parquet"), glob=False))

    def optional_table(self, name: str) -> "pl.DataFrame | None":
        """As `table`; None where the version has no such table.

        Example:
            >>> store.require("category_loras", "hook").optional_table("rounds")  # doctest: +SKIP
        """
        return self.table(name) if f"{name}.parquet" in self.names() else None

    def json(self, name: str) -> Any:
        """The value in `<name>.json`. Raises as `file`.

        Example:
            >>> store.require("verifier").json("thresholds")  # doctest: +SKIP
        """
        return json.loads(self.file(f"{name}.json").read_text(encoding="utf-8"))

    def verify(self, parts: Collection[str] | None = None) -> None:
        """Check the files against the version's name. A file is read once by a process, unless its
        state on disk changes.

        Args:
            parts: files and folders whose content is checked; all where None. Missing and added
                files are found in any case.

        Raises:
            Damaged: the files are not those that were published; names the first one.

        Example:
            >>> store.require("verifier").verify()  # doctest: +SKIP
        """
        if self.remote is not None:
            self._verify_copies(self.remote, parts)
            return
        digests = read_manifest(manifest_file(self.path))
        if digests is not None and content_name(digests) == self.version:
            why = first_difference(self.path, digests, parts)
        elif content_version(self.path) != self.version:
            # Published before there were manifests: known as a whole only.
            why = "one of its files is not the file that was written"
        else:
            why = None
        if why is not None:
            raise self._damaged(why)

    def verify_here(self) -> None:
        """`verify` of what is on this machine: all of a folder, the copies from a bucket."""
        self.verify(None if self.remote is None else ())

    def _verify_copies(self, remote: RemoteHome, parts: Collection[str] | None) -> None:
        """Copy what is not here, and check all that is; what was damaged here is copied again."""
        manifest = manifest_file(self.path)
        for last in (False, True):
            digests = remote.fetch(self.path, manifest, parts)
            if digests is None:
                raise NotStored(
                    f"{self.name} version {self.version} is not in {remote.bucket.url}: it was "
                    "pruned, or never uploaded as a whole",
                    f"materialise {self.name} again",
                )
            if content_name(digests) != self.version:
                why: str | None = f"its manifest {remote.address(manifest)} was altered"
            else:
                here = {one: own for one, own in digests.items() if (self.path / one).exists()}
                why = first_difference(self.path, here, parts or None)
            if why is None:
                return
            if last:
                raise self._damaged(why)
            remote.forget(self.path, manifest)

    def _damaged(self, why: str) -> Damaged:
        again = f"`hoi run --force {self.partition or ''}".rstrip() + "`"
        return Damaged(
            f"{self.name} version {self.version} was altered: {why} ({self.path})",
            f"restore that file from a copy, or make the version again with {again} (in the UI: "
            "materialise with `force`); the altered files are kept in quarantine then",
        )

    def as_record(self) -> dict[str, Any]:
        """The publication as JSON-able data; the path follows from the rest."""
        return {
            "asset": self.asset,
            "partition": self.partition,
            "version": self.version,
            "inputs": self.inputs,
            "run_id": self.run_id,
            "published_at": self.published_at,
            "parents": self.parents,
        }

    @staticmethod
    def from_record(
        home: Path, record: dict[str, Any], remote: RemoteHome | None = None
    ) -> "Published":
        """The publication that `as_record` wrote.

        Raises:
            KeyError, TypeError: data of another form.
        """
        asset, partition, version = record["asset"], record["partition"], record["version"]
        return Published(
            asset=asset,
            partition=partition,
            version=version,
            path=version_folder(home, asset, partition, version),
            inputs=record["inputs"],
            run_id=record["run_id"],
            published_at=record["published_at"],
            parents=record["parents"],
            remote=remote,
        )


def check_served(home: Path, path: Path, remote: RemoteHome | None = None) -> None:
    """Check a file before it is served, where it is part of a version; from a bucket it is copied.

    Raises:
        Damaged: it is not what was published.
    """
    parts = path.relative_to(home).parts
    if len(parts) > 5 and (parts[0], parts[3]) == ("assets", "versions"):
        _, asset, place, _, version, *name = parts
        partition = None if place == UNPARTITIONED else place
        folder = version_folder(home, asset, partition, version)
        served = Published(asset, partition, version, folder, {}, None, "", remote=remote)
        served.verify(["/".join(name)])


def content_name(digests: Mapping[str, str]) -> str:
    """The version that files of these digests make: 16 hex digits.

    Args:
        digests: by name, as `hashing.file_digests` gives them.

    Example:
        >>> content_name({"a": "5f1c", "b": "9a40"})
        '8b3d63f041f0284f'
    """
    return digest_files(digests)[:VERSION_DIGITS]


def content_version(folder: Path) -> str:
    """The version that the content of `folder` has: 16 hex digits.

    Example:
        >>> content_version(Path("data/taxonomy"))  # doctest: +SKIP
        '5d41402abc4b2a76'
    """
    return digest_folder(folder)[:VERSION_DIGITS]
