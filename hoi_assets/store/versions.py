"""Versions of assets: staged, published at one stroke, immutable from then on.

Layout below `home`:
    assets/<asset>/<partition or "_">/versions/<version>/...   the files of one version, read-only
    assets/<asset>/<partition or "_">/current.json             which version is in force
    assets/<asset>/<partition or "_">/publications.jsonl       every publication, oldest first
    quarantine/<asset>/<partition or "_">/<version>/           content/ and evidence.json
    images/<aa>/<pixel digest>.png, ledger.sqlite, staging/, locks/, hoi.duckdb (derived)
    latents/<aa>/<image key>-<batch size>.safetensors: of the second line; may be deleted
"""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json, digest_folder, files_below
from hoi_assets.store.disk import replace_bytes, sync, writing
from hoi_assets.store.images import ImageStore
from hoi_assets.store.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl

UNPARTITIONED = "_"
VERSION_DIGITS = 16
PUBLISH_TIMEOUT_S = 60.0
PUBLISH_POLL_S = 0.005
ABANDONED_AFTER_S = 3600.0
ROW_GROUP_ROWS = 65_536
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Published:
    """One version in the store.

    Attributes:
        version: 16 hex digits, the hash of the content.
        path: folder of its files.
        inputs: what it was made from; parents as {"asset" or "asset/partition": version}.
        parents: versions it was made from that `inputs` does not name; the same form.
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

    @property
    def name(self) -> str:
        """`asset` or `asset/partition`, as `inputs` name parents."""
        return place_name(self.asset, self.partition)

    def file(self, name: str) -> Path:
        """Path of a file or folder of this version.

        Raises:
            HoiError: there is no such file, or the version was pruned.

        Example:
            >>> published.file("lora/pytorch_lora_weights.safetensors")  # doctest: +SKIP
        """
        path = self.path / name
        if not path.exists():
            here = ", ".join(file for file, _ in files_below(self.path)[:10])
            raise HoiError(
                f"{self.name} version {self.version} has no {name!r}; it has: {here or 'nothing'}",
                f"materialise {self.name} again" if not here else "ask for one of these",
            )
        return path

    def table(self, name: str) -> "pl.DataFrame":
        """The table `<name>.parquet`. Raises as `file`.

        Example:
            >>> store.require("hoi_dataset").table("rows")  # doctest: +SKIP
        """
        import polars as pl

        from hoi_assets.store.tables import with_current_names

        return with_current_names(pl.read_parquet(self.file(f"{name}.parquet"), glob=False))

    def json(self, name: str) -> Any:
        """The value in `<name>.json`. Raises as `file`.

        Example:
            >>> store.require("verifier").json("thresholds")  # doctest: +SKIP
        """
        return json.loads(self.file(f"{name}.json").read_text(encoding="utf-8"))

    def verify(self) -> None:
        """Recompute the hash of the content.

        Raises:
            HoiError: the files are not those that were published.

        Example:
            >>> store.require("verifier").verify()  # doctest: +SKIP
        """
        found = content_version(self.path)
        if found != self.version:
            raise HoiError(
                f"{self.name} version {self.version} was altered: its files hash to {found}",
                f"materialise {self.name} again with force: the altered files are set aside",
            )


class Staging:
    """A folder in which a version is put together. Made by `Store.stage`; a context manager.

    On exit the folder is removed, unless it was published or quarantined.
    """

    def __init__(self, store: "Store", asset: str, partition: str | None) -> None:
        self.asset = asset
        self.partition = partition
        name = f"{asset}-{partition or UNPARTITIONED}-{uuid.uuid4().hex[:12]}"
        self.path = store.staging / name
        self._temporary = store.staging
        # Held while the folder is in use and let go by the system when the process dies.
        self._lock = FileLock(self.path.with_name(f"{name}.lock"), thread_local=False)
        with writing(self.path):
            self._lock.acquire(timeout=PUBLISH_TIMEOUT_S)
            self.path.mkdir()

    def write_table(self, name: str, table: "pl.DataFrame") -> Path:
        """Write `<name>.parquet`; equal tables give equal bytes.

        Example:
            >>> staging.write_table("rows", pl.DataFrame({"row_id": ["a"]}))  # doctest: +SKIP
        """
        return self._write(f"{name}.parquet", parquet_bytes(table))

    def write_json(self, name: str, value: Any) -> Path:
        """Write `<name>.json`: keys sorted, UTF-8, two spaces of indent; no NaN.

        Example:
            >>> staging.write_json("thresholds", {"fidelity": 0.7})  # doctest: +SKIP
        """
        text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return self._write(f"{name}.json", f"{text}\n".encode())

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file under its full name, e.g. "README.md", as UTF-8.

        Example:
            >>> staging.write_text("README.md", "# Card")  # doctest: +SKIP
        """
        return self._write(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a binary file under its full name, e.g. "loss.png".

        Example:
            >>> staging.write_bytes("loss.png", png)  # doctest: +SKIP
        """
        return self._write(name, data)

    def add_folder(self, name: str, source: Path) -> Path:
        """Copy the files below `source` to the sub-folder `name` (links become files).

        Example:
            >>> staging.add_folder("lora", Path("/scratch/lora"))  # doctest: +SKIP
        """
        if not source.is_dir():
            raise HoiError(f"{source} is not a folder", f"make it before adding it as {name!r}")
        target = self._inside(name)
        with writing(target):
            for relative, path in files_below(source):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / relative)
        return target

    def table(self, name: str) -> "pl.DataFrame":
        """Read a staged table back, as the gate does.

        Example:
            >>> staging.table("rows").height  # doctest: +SKIP
            48
        """
        import polars as pl

        return pl.read_parquet(self._inside(f"{name}.parquet"), glob=False)

    def version(self) -> str:
        """Hash of the staged content: 16 hex digits.

        Example:
            >>> staging.version()  # doctest: +SKIP
            '5d41402abc4b2a76'
        """
        return content_version(self.path)

    def _inside(self, name: str) -> Path:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()) or path == self.path:
            raise HoiError(f"file name {name!r} leaves the version's folder", "use a plain name")
        return path

    def _write(self, name: str, data: bytes) -> Path:
        path = self._inside(name)
        replace_bytes(path, data, self._temporary, durable=False, mode=0o644)
        return path

    def close(self) -> None:
        """Remove what is left of the folder and let go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Store:
    """Everything the platform keeps, below one folder. Safe for several processes.

    Args:
        home: the folder, made where absent; may hold spaces.

    Example:
        >>> store = Store(Path("data/out"))  # doctest: +SKIP
        >>> with store.stage("detailed_prompts", "hook") as staging:  # doctest: +SKIP
        ...     staging.write_table("rows", table)
        ...     published = store.publish(staging, inputs={}, run_id=None)
    """

    def __init__(self, home: Path) -> None:
        self.home = Path(home).absolute()
        self.staging = self.home / "staging"
        self.locks = self.home / "locks"
        with writing(self.home):
            self.staging.mkdir(parents=True, exist_ok=True)
            self.locks.mkdir(exist_ok=True)
        self._remove_abandoned()

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.home,)

    @cached_property
    def images(self) -> ImageStore:
        """The content-addressed images."""
        return ImageStore(self.home / "images", self.staging)

    @cached_property
    def ledger(self) -> Ledger:
        """What was made and how rows ended."""
        return Ledger(self.home / "ledger.sqlite")

    def stage(self, asset: str, partition: str | None = None) -> Staging:
        """A fresh folder in which to put a version together.

        Example:
            >>> with store.stage("verifier") as staging:  # doctest: +SKIP
            ...     staging.write_json("thresholds", {"fidelity": 0.7})
        """
        _check_names(asset, partition)
        return Staging(self, asset, partition)

    def publish(
        self,
        staging: Staging,
        inputs: dict[str, Any],
        run_id: str | None,
        parents: dict[str, str] | None = None,
    ) -> Published:
        """Put the staged content in force, at one stroke and for good.

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
        version = staging.version()
        folder = self._folder(staging.asset, staging.partition)
        target = folder / "versions" / version
        published = Published(
            asset=staging.asset,
            partition=staging.partition,
            version=version,
            path=target,
            inputs=json.loads(canonical_json(inputs)),
            run_id=run_id,
            published_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            parents=dict(parents or {}),
        )
        with writing(target), self.publishing(staging.asset, staging.partition):
            self.images.flush()
            _seal(staging.path, files)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and content_version(target) != version:
                self._set_aside(target, staging.asset, staging.partition)
            if not target.exists():
                staging.path.replace(target)
                sync(target.parent)
            line = canonical_json(_record(published))
            _append_line(folder / "publications.jsonl", line)
            replace_bytes(
                folder / "current.json",
                f"{line}\n".encode(),
                self.staging,
                durable=True,
                mode=0o644,
            )
        return published

    def quarantine(self, staging: Staging, evidence: dict[str, Any]) -> Path:
        """Set the staged content aside with the evidence against it; nothing reads it downstream.

        Returns:
            `quarantine/<asset>/<partition>/<version>` with `content/` and `evidence.json`. The
            same content quarantined again replaces its evidence.

        Example:
            >>> store.quarantine(staging, {"expectation": "rows >= 8", "observed": 3})
            ... # doctest: +SKIP
        """
        folder = self._quarantine_folder(staging.asset, staging.partition) / staging.version()
        with writing(folder), self.publishing(staging.asset, staging.partition):
            folder.mkdir(parents=True, exist_ok=True)
            content = folder / "content"
            if content.exists():
                shutil.rmtree(content)
            staging.path.replace(content)
            when = datetime.now(UTC).isoformat(timespec="microseconds")
            text = json.dumps({"quarantined_at": when, **evidence}, indent=2, default=str)
            replace_bytes(
                folder / "evidence.json", text.encode(), self.staging, durable=True, mode=0o644
            )
        return folder

    def current(self, asset: str, partition: str | None = None) -> Published | None:
        """The version in force, or None.

        Example:
            >>> store.current("verifier") is None  # doctest: +SKIP
            True
        """
        path = self._folder(asset, partition) / "current.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return self._published(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise HoiError(
                f"{path} is not readable as a pointer to a version: {error}",
                f"delete it and materialise {place_name(asset, partition)} again",
            ) from error

    def require(self, asset: str, partition: str | None = None) -> Published:
        """The version in force.

        Raises:
            HoiError: none is; says what to materialise.

        Example:
            >>> store.require("instance_images", "hook").table("rows")  # doctest: +SKIP
        """
        found = self.current(asset, partition)
        if found is None:
            name = place_name(asset, partition)
            raise HoiError(
                f"{name} has no published version in {self.home}",
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
        if not found[-1].path.is_dir():
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
        path = self._folder(asset, partition) / "publications.jsonl"
        if not path.exists():
            return []
        # A line without its end was cut short by a kill and never came into force.
        lines = path.read_bytes().split(b"\n")[:-1]
        return [self._published(json.loads(line)) for line in lines if line]

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
        _check_names(asset, None)
        folders = (self.home / "assets" / asset).glob("*/current.json")
        return sorted({path.parent.name for path in folders} - {UNPARTITIONED})

    def all_current(self) -> list[Published]:
        """Every version in force, sorted by asset and partition.

        Example:
            >>> [p.name for p in store.all_current()]  # doctest: +SKIP
            ['detailed_prompts/hook', 'verifier']
        """
        places = sorted(path.parent for path in (self.home / "assets").glob("*/*/current.json"))
        found = [self.current(place.parent.name, _partition(place.name)) for place in places]
        return [published for published in found if published is not None]

    def prune(self, keep: int = 1, dry_run: bool = False) -> list[Path]:
        """Remove old versions.

        Kept are, per asset and partition: the version in force, the latest `keep` distinct ones,
        and every version that the inputs of a kept one refer to, through any number of steps.

        Args:
            keep: at least 1.
            dry_run: only say what would be removed.

        Returns:
            Folders of the removed versions.

        Example:
            >>> store.prune(keep=2, dry_run=True)  # doctest: +SKIP
            [PosixPath('.../versions/5d41402abc4b2a76')]
        """
        from hoi_assets.store.pruning import prune

        return prune(self, keep, dry_run)

    @contextmanager
    def lock(
        self, asset: str, partition: str | None = None, timeout_s: float = 60.0
    ) -> Iterator[None]:
        """Hold `asset` (of `partition`) alone while it is computed.

        The lock ends with the process that holds it, however that ends.

        Raises:
            HoiError: another process held it for `timeout_s` seconds; says which.

        Example:
            >>> with store.lock("candidate_images", "hook", timeout_s=5):  # doctest: +SKIP
            ...     compute()
        """
        _check_names(asset, partition)
        folder = self.locks / "computing" / asset
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        stem = partition or UNPARTITIONED
        lock = FileLock(folder / f"{stem}.lock", thread_local=False)
        holder = folder / f"{stem}.holder"
        try:
            with writing(folder):
                lock.acquire(timeout=timeout_s)
        except Timeout as error:
            try:
                who = holder.read_text(encoding="utf-8")
            except FileNotFoundError:
                who = "another process"
            raise HoiError(
                f"{place_name(asset, partition)} is being made by {who} since more than "
                f"{timeout_s:g} s",
                "wait until it ends, or stop that process, then run again",
            ) from error
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            text = f"process {os.getpid()} on {os.uname().nodename} (started holding {since})"
            replace_bytes(holder, text.encode(), self.staging, durable=False, mode=0o644)
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release(force=True)

    def _folder(self, asset: str, partition: str | None) -> Path:
        _check_names(asset, partition)
        return self.home / "assets" / asset / (partition or UNPARTITIONED)

    def _quarantine_folder(self, asset: str, partition: str | None) -> Path:
        return self.home / "quarantine" / asset / (partition or UNPARTITIONED)

    def _published(self, record: dict[str, Any]) -> Published:
        asset, partition, version = record["asset"], record["partition"], record["version"]
        return Published(
            asset=asset,
            partition=partition,
            version=version,
            path=self._folder(asset, partition) / "versions" / version,
            inputs=record["inputs"],
            run_id=record["run_id"],
            published_at=record["published_at"],
            parents=record["parents"],
        )

    @contextmanager
    def publishing(self, asset: str, partition: str | None) -> Iterator[None]:
        """Short exclusion of publishers and pruners of one place; not the lock of computing."""
        folder = self.locks / "publishing" / asset
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{partition or UNPARTITIONED}.lock"
        lock = FileLock(folder / name, timeout=PUBLISH_TIMEOUT_S, thread_local=False)
        with lock.acquire(poll_interval=PUBLISH_POLL_S):
            yield

    def _set_aside(self, target: Path, asset: str, partition: str | None) -> None:
        folder = self._quarantine_folder(asset, partition)
        folder.mkdir(parents=True, exist_ok=True)
        target.replace(folder / f"{target.name}-altered-{uuid.uuid4().hex[:8]}")

    def _remove_abandoned(self) -> None:
        """Remove staging that no living process holds, and old half-written files."""
        for path in sorted(self.staging.iterdir()):
            if path.suffix == ".lock":
                lock = FileLock(path, thread_local=False)
                try:
                    lock.acquire(blocking=False)
                except (Timeout, OSError):
                    continue
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
                lock.release(force=True)
            elif path.is_dir() and not path.with_name(f"{path.name}.lock").exists():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix == ".tmp" and _age_s(path) > ABANDONED_AFTER_S:
                path.unlink(missing_ok=True)


def place_name(asset: str, partition: str | None) -> str:
    """`asset` or `asset/partition`: how inputs and messages name a place in the graph.

    Example:
        >>> place_name("detailed_prompts", "hook")
        'detailed_prompts/hook'
    """
    return asset if partition is None else f"{asset}/{partition}"


def content_version(folder: Path) -> str:
    """The version that the content of `folder` has: 16 hex digits.

    Example:
        >>> content_version(Path("data/taxonomy"))  # doctest: +SKIP
        '5d41402abc4b2a76'
    """
    return digest_folder(folder)[:VERSION_DIGITS]


def parquet_bytes(table: "pl.DataFrame") -> bytes:
    """A table as Parquet: equal tables give equal bytes, in any process (same polars version).

    Example:
        >>> import polars as pl
        >>> parquet_bytes(pl.DataFrame({"a": [1]}))[:4]
        b'PAR1'
    """
    import io

    data = io.BytesIO()
    # One chunk and fixed row groups: how the table was put together must not show.
    table.rechunk().write_parquet(
        data,
        compression="zstd",
        compression_level=3,
        statistics=True,
        row_group_size=ROW_GROUP_ROWS,
        data_page_size=1024 * 1024,
    )
    return data.getvalue()


def _check_names(asset: str, partition: str | None) -> None:
    for what, name in (("asset", asset), ("partition", partition)):
        if name is None:
            continue
        if not NAME.fullmatch(name) or (what == "partition" and name == UNPARTITIONED):
            raise HoiError(
                f"{what} name {name!r} cannot name a folder",
                "use letters, digits, '_', '-' and '.', beginning with a letter or digit",
            )


def _partition(folder_name: str) -> str | None:
    return None if folder_name == UNPARTITIONED else folder_name


def _record(published: Published) -> dict[str, Any]:
    return {
        "asset": published.asset,
        "partition": published.partition,
        "version": published.version,
        "inputs": published.inputs,
        "run_id": published.run_id,
        "published_at": published.published_at,
        "parents": published.parents,
    }


def _seal(folder: Path, files: list[tuple[str, Path]]) -> None:
    """Make files read-only and flush them and their folders to disk."""
    for _, path in files:
        path.chmod(0o444)
        sync(path)
    for root, _, _ in os.walk(folder):
        sync(Path(root))


def _append_line(path: Path, line: str) -> None:
    """Append one line durably; what a kill or a full disk cut short before is dropped."""
    whole = 0
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
    data = memoryview(f"{line}\n".encode())
    try:
        # Unbuffered, so that nothing is left to be written when the block ends by an error.
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
    except OSError:
        os.truncate(path, whole)
        raise
    sync(path.parent)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
