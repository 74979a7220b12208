"""Versions of assets: staged, published in one step, immutable from then on.

Layout below `home`:
    assets/<asset>/<partition or "_">/versions/<version>/...   the files of one version, read-only
    assets/<asset>/<partition or "_">/manifests/<version>.json the digest of each of its files
    assets/<asset>/<partition or "_">/current.json             which version is in force
    assets/<asset>/<partition or "_">/publications.jsonl       every publication, oldest first
    quarantine/<asset>/<partition or "_">/<version>/           content/ and evidence.json
    images/<aa>/<pixel digest>.png, ledger.sqlite, staging/, locks/, hoi.duckdb (derived)
    home.json                                                  the profile that the home belongs to
    ledger.json                                                in place of ledger.sqlite: its server
    gates/<asset>/<partition or "_">/*.json                    evidence, see publishing/evidence.py
    latents/<aa>/<image key>-<batch size>.safetensors: of DetailScribe; may be deleted

A home in a bucket has the same names as keys, less what belongs to one machine, and `pointers/` in
place of current.json and publications.jsonl; see docs/object-storage.md.
"""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json, file_digests, files_below
from hoi_assets.settings import is_url
from hoi_assets.store import locks, quarantine
from hoi_assets.store.disk import replace_bytes, sync, writing
from hoi_assets.store.home import IDENTITY, adopt, check_path, check_profile
from hoi_assets.store.images import PNG, ImageStore
from hoi_assets.store.integrity import write_manifest
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.ledger_home import open_ledger
from hoi_assets.store.places import (
    check_names,
    manifest_file,
    place_folder,
    place_name,
    quarantine_folder,
    version_folder,
)
from hoi_assets.store.pointers import BucketPointers, FolderPointers, Place, Pointers
from hoi_assets.store.published import Published, content_name, content_version
from hoi_assets.store.remote_home import POINTERS, RemoteHome
from hoi_assets.store.remote_images import RemoteImageStore
from hoi_assets.store.staging import NESTED_STAGING, Staging, parquet_bytes, remove_abandoned

__all__ = ["Published", "Staging", "Store", "content_version", "parquet_bytes", "place_name"]


class Store:
    """Everything the platform stores, below one folder or in one bucket. Safe for several
    processes, and in a bucket for several machines.

    Args:
        home: the folder, made where absent; one that cannot be written can be read. Or the URL
            `s3://bucket/prefix`.
        profile: name of the profile at work; it becomes the home's with the first version staged.
            None where none is.
        picture_format: of new images, see `ImageStore`.

    Raises:
        HoiError: a path that cannot be a home, a home of another profile, or no permission; a
            bucket that is not there, does not answer, or refuses the credentials.

    Example:
        >>> store = Store(Path("data/out"))  # doctest: +SKIP
        >>> with store.stage("detailed_prompts", "hook") as staging:  # doctest: +SKIP
        ...     staging.write_table("rows", table)
        ...     published = store.publish(staging, inputs={}, run_id=None)
    """

    def __init__(
        self, home: Path | str, profile: str | None = None, picture_format: str = PNG
    ) -> None:
        self.picture_format = picture_format
        self.remote = RemoteHome(home) if isinstance(home, str) and is_url(home) else None
        self.home = Path(home).absolute() if self.remote is None else self.remote.mirror
        self.profile = profile
        self.staging = self.home / "staging"
        self.locks = self.home / "locks"
        self.pointers: Pointers = (
            FolderPointers(self.home, self.staging)
            if self.remote is None
            else BucketPointers(self.remote)
        )
        check_path(self.home)
        if self.remote is not None:
            self.remote.pull(self.home / IDENTITY)
        if profile is not None:
            check_profile(self.home, profile)
        if not self.read_only:
            with writing(self.home):
                self.staging.mkdir(parents=True, exist_ok=True)
                self.locks.mkdir(exist_ok=True)
                for place in (self.staging, *self.home.glob(f"*/{NESTED_STAGING}")):
                    remove_abandoned(place)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path | str, str | None, str]]:
        return Store, (self.location, self.profile, self.picture_format)

    @property
    def location(self) -> Path | str:
        """The home's folder, or its URL."""
        return self.home if self.remote is None else self.remote.bucket.url

    @cached_property
    def read_only(self) -> bool:
        """Whether the home exists and this process cannot write it."""
        folders = [path for path in (self.home, self.staging, self.locks) if path.exists()]
        return not all(os.access(path, os.W_OK) for path in folders)

    def require_writable(self) -> None:
        """Raises HoiError where the home cannot be written."""
        if self.read_only:
            raise HoiError(
                f"the home {self.home} cannot be written",
                "give this user write permission there, or set HOI_HOME to a folder of your own; "
                "stale, sql, summary and trace read it as it is",
            )

    @cached_property
    def images(self) -> ImageStore:
        """The content-addressed images."""
        if self.remote is not None:
            return RemoteImageStore(self.remote, self.picture_format)
        return ImageStore(self.home / "images", self.staging, self.picture_format)

    @cached_property
    def ledger(self) -> Ledger:
        """Generated values by key, and how rows ended."""
        return open_ledger(self.home, self.staging, self.read_only, self.remote)

    def stage(self, asset: str, partition: str | None = None) -> Staging:
        """A fresh folder in which to put a version together.

        Example:
            >>> with store.stage("verifier") as staging:  # doctest: +SKIP
            ...     staging.write_json("thresholds", {"fidelity": 0.7})
        """
        if self.profile is not None:
            adopt(self.home, self.profile, self.staging, self.remote)
        return Staging(self.staging, asset, partition)

    def publish(
        self,
        staging: Staging,
        inputs: dict[str, Any],
        run_id: str | None,
        parents: dict[str, str] | None = None,
    ) -> Published:
        """Put the staged content in force in one step; it is immutable from then on.

        A version of equal content that exists already is used again; one whose files were altered
        is set aside in quarantine and replaced. Images put by this process are flushed first.

        Args:
            inputs: JSON; parents as {"asset" or "asset/partition": version}, at any depth.
            parents: versions it was made from, where `inputs` does not name them; the same form.

        Raises:
            HoiError: nothing was staged.
            DiskFull: no space left; the version in force before stays in force.

        Example:
            >>> store.publish(staging, {"detailed_prompts/hook": "5d41402abc4b2a76"},
            ...     run_id="r1").version  # doctest: +SKIP
            'a3c65c2974270fd0'
        """
        files = files_below(staging.path)
        if not files:
            raise HoiError(
                f"{place_name(staging.asset, staging.partition)}: nothing was staged",
                "write at least one table or file before publishing, and publish once",
            )
        digests = file_digests(staging.path)
        version = content_name(digests)
        target = version_folder(self.home, staging.asset, staging.partition, version)
        published = Published(
            asset=staging.asset,
            partition=staging.partition,
            version=version,
            path=target,
            remote=self.remote,
            inputs=json.loads(canonical_json(inputs)),
            run_id=run_id,
            published_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            parents=dict(parents or {}),
        )
        with writing(target), self.publishing(staging.asset, staging.partition):
            self.images.flush()
            staging.seal()
            target.parent.mkdir(parents=True, exist_ok=True)
            manifest = manifest_file(target)
            if self.remote is not None:
                self.remote.upload(target, staging.path, digests, manifest)
                self.remote.fill(target, staging.path, digests)
            write_manifest(manifest, digests, self.staging)
            if self.remote is None and target.exists() and content_version(target) != version:
                quarantine.set_aside(self.home, target, staging.asset, staging.partition)
            if not target.exists():
                staging.path.replace(target)
                sync(target.parent)
            self.pointers.publish(published)
        return published

    def keep_manifest(self, published: Published) -> None:
        """Write the manifest of a version of an earlier release, which the caller has verified, so
        that later damage can be named by file."""
        path = manifest_file(published.path)
        if self.remote is None and not path.exists():
            write_manifest(path, file_digests(published.path), self.staging)

    def quarantine(self, staging: Staging, evidence: dict[str, Any]) -> Path:
        """Set the staged content aside with the evidence against it; nothing reads it downstream.

        Returns:
            `quarantine/<asset>/<partition>/<version>` with `content/` and `evidence.json`. The
            same content quarantined again replaces its evidence.

        Example:
            >>> store.quarantine(staging, {"expectation": "rows >= 8", "observed": 3})
            ... # doctest: +SKIP
        """
        place = quarantine_folder(self.home, staging.asset, staging.partition)
        with writing(place), self.publishing(staging.asset, staging.partition):
            folder = quarantine.quarantine(self.home, staging, evidence)
            if self.remote is not None:
                self.remote.push_files(path for _, path in files_below(folder))
            return folder

    def current(self, asset: str, partition: str | None = None) -> Published | None:
        """The version in force, or None.

        Example:
            >>> store.current("verifier") is None  # doctest: +SKIP
            True
        """
        return self.pointers.current(asset, partition)

    def require(self, asset: str, partition: str | None = None) -> Published:
        """The version in force.

        Raises:
            HoiError: there is none; the message says what to materialise.

        Example:
            >>> store.require("instance_images", "hook").table("rows")  # doctest: +SKIP
        """
        found = self.current(asset, partition)
        if found is None:
            name = place_name(asset, partition)
            raise HoiError(
                f"{name} has no published version in {self.location}",
                f"materialise {asset}{f' for {partition}' if partition else ''} first, and see "
                "its gate where it was materialised before",
            )
        return found

    def version(self, asset: str, partition: str | None, version: str) -> Published:
        """One published version, as last published.

        Raises:
            HoiError: never published, or pruned since.

        Example:
            >>> store.version("detailed_prompts", "hook", "5d41402abc4b2a76")  # doctest: +SKIP
        """
        history = self.history(asset, partition)
        found = [published for published in history if published.version == version]
        if not found:
            raise HoiError(
                f"{place_name(asset, partition)} has no version {version!r}",
                f"known: {', '.join(dict.fromkeys(p.version for p in history)) or 'none'}",
            )
        if not found[-1].is_stored():
            raise HoiError(
                f"{place_name(asset, partition)} version {version} was pruned",
                "materialise it again from the same inputs",
            )
        return found[-1]

    def history(self, asset: str, partition: str | None = None) -> list[Published]:
        """Every publication, oldest first; pruned versions included (their path is gone).

        Example:
            >>> [p.version for p in store.history("verifier")]  # doctest: +SKIP
        """
        return self.pointers.history(asset, partition)

    def assets(self) -> list[str]:
        """Names of assets with a version in force, sorted.

        Example:
            >>> store.assets()  # doctest: +SKIP
            ['base_prompt_taxonomy', 'detailed_prompts']
        """
        return sorted({published.asset for published in self.all_current()})

    def partitions(self, asset: str) -> list[str]:
        """Partitions of `asset` with a version in force, sorted.

        Example:
            >>> store.partitions("detailed_prompts")  # doctest: +SKIP
            ['hook', 'tripod']
        """
        check_names(asset, None)
        with self.moment():
            found = [one for name, one in self.places() if name == asset and one is not None]
            return sorted(one for one in found if self.current(asset, one) is not None)

    def all_current(self) -> list[Published]:
        """Every version in force, sorted by asset and partition.

        Example:
            >>> [p.name for p in store.all_current()]  # doctest: +SKIP
            ['detailed_prompts/hook', 'verifier']
        """
        with self.moment():
            found = [self.current(asset, partition) for asset, partition in self.places()]
        return [published for published in found if published is not None]

    def places(self) -> list[Place]:
        """Every place (asset, partition) that was ever published, sorted by the folder's name.

        Example:
            >>> store.places()  # doctest: +SKIP
            [('detailed_prompts', 'hook'), ('verifier', None)]
        """
        return self.pointers.places()

    def moment(self, *also: str) -> AbstractContextManager[None]:
        """Inside, this thread reads the pointers of a bucket as they are at its start, with one
        question for all of them; a folder's are read as they are.

        Args:
            also: further folders of small files, e.g. "gates".

        Example:
            >>> with store.moment():  # doctest: +SKIP
            ...     versions = [store.current("detailed_prompts", key) for key in keys]
        """
        return nullcontext() if self.remote is None else self.remote.moment(POINTERS, *also)

    def read_shared(self, path: Path) -> bytes | None:
        """A small file of the home that several processes write, as it is now; None where absent.

        Args:
            path: below `home`.
        """
        if self.remote is not None:
            return self.remote.pull(path)
        return path.read_bytes() if path.is_file() else None

    def write_shared(self, path: Path, data: bytes) -> None:
        """Write a small file of the home, whole or not at all; the last write wins."""
        if self.remote is not None:
            self.remote.push(path, data)
        else:
            replace_bytes(path, data, self.staging, durable=False, mode=0o644)

    def lock(
        self, asset: str, partition: str | None = None, timeout_s: float = 60.0
    ) -> AbstractContextManager[None]:
        """Lock `asset` (of `partition`) while it is computed.

        The lock ends with its process, however that ends; in a bucket it expires after a minute
        where that was on another machine.

        Raises:
            HoiError: another process held it for `timeout_s` seconds; names that process.

        Example:
            >>> with store.lock("candidate_images", "hook", timeout_s=5):  # doctest: +SKIP
            ...     compute()
        """
        if self.remote is not None:
            return locks.computing_remotely(self.remote, asset, partition, timeout_s)
        return locks.computing(self.locks, self.staging, asset, partition, timeout_s)

    def publishing(self, asset: str, partition: str | None) -> AbstractContextManager[None]:
        """Short exclusion of publishers and pruners of one place; not the lock of computing."""
        if self.remote is not None:
            return locks.publishing_remotely(self.remote, asset, partition)
        return locks.publishing(self.locks, asset, partition)

    def place(self, asset: str, partition: str | None = None) -> Path:
        """Folder of a place: its versions, its pointer and its history."""
        return place_folder(self.home, asset, partition)
