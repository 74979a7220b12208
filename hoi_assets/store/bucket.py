"""A bucket with an S3 interface, below a prefix: the few calls that a remote home is made of.

A write is one object, whole or absent; it can be made conditional on the object's absence or on its
ETag, and the server lets one of several such writes win. Ages come from the server's clock alone.
Endpoint and credentials come from the environment variables and files of the AWS SDKs.
"""

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from hoi_assets.errors import HoiError
from hoi_assets.store.bucket_errors import (
    Absent,
    Conflict,
    Unchanged,
    Unreachable,
    of_code,
    translated,
)
from hoi_assets.store.home import REFUSED

URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
# With exponential back-off; the standard variable AWS_MAX_ATTEMPTS sets another number.
ATTEMPTS = 8
PARALLEL = 16
BLOCK_BYTES = 1 << 20
DELETED_AT_ONCE = 1000  # of S3
SHA256 = "sha256"  # metadata of objects: the digest of the file that was uploaded
_CONNECTING = threading.Lock()


@dataclass(frozen=True)
class Content:
    """An object's bytes, its ETag, and its age by the server's clock in seconds."""

    data: bytes
    etag: str
    age_s: float


@dataclass(frozen=True)
class Listed:
    """An object in a listing: its key below the prefix, ETag, bytes, and age in seconds."""

    key: str
    etag: str
    size: int
    age_s: float


class Bucket:
    """See the module. Safe for several threads, and for processes that were forked.

    Args:
        url: `s3://bucket` or `s3://bucket/prefix`.

    Raises:
        HoiError: a URL of another form; boto3 is not installed. Every call raises HoiError that
            names the bucket and the remedy.
    """

    def __init__(self, url: str) -> None:
        found = URL.fullmatch(url.rstrip("/"))
        prefix = (found and found[2]) or ""
        parts = prefix.split("/") if prefix else []
        odd = any(part in ("", ".", "..") for part in parts) or not prefix.isprintable()
        if found is None or odd or any(one in prefix for one in REFUSED):
            raise HoiError(
                f"the home {url!r} is not a URL of a bucket",
                "set HOI_HOME to s3://BUCKET or s3://BUCKET/PREFIX: bucket names have 3 to 63 "
                "lower-case letters, digits, '-' and '.'; the prefix is printable, without "
                f"empty parts, '..' and {' '.join(REFUSED)}",
            )
        self.url = url.rstrip("/")
        self.name = found[1]
        self.prefix = f"{prefix}/" if prefix else ""
        self._clients: dict[int, Any] = {}

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str]]:
        return Bucket, (self.url,)

    def get(self, key: str, known: bytes | None = None) -> Content | None:
        """An object; None where there is none.

        Args:
            known: what the caller has already; an object of that content is not sent again.
        """
        condition = {} if known is None else {"IfNoneMatch": etag_of(known)}
        data = io.BytesIO()
        try:
            found = self._read(key, data, **condition)
        except Unchanged as error:
            assert known is not None
            return Content(known, etag_of(known), _age(error.response))
        except Absent:
            return None
        return Content(data.getvalue(), found["ETag"], _age(found))

    def put(self, key: str, data: bytes, etag: str | None = None, absent: bool = False) -> str:
        """Write an object; returns its ETag.

        Args:
            etag: write only where the object has this one.
            absent: write only where there is none.

        Raises:
            Conflict: another writer was first.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"} if absent else {}
        metadata = {SHA256: hashlib.sha256(data).hexdigest()}
        try:
            return self._ask("put_object", key, Body=data, Metadata=metadata, **condition)["ETag"]
        except Absent as error:
            if etag is None:
                raise
            raise Conflict(self.url, key) from error  # AWS says so where what it replaces is gone

    def put_content(self, key: str, data: bytes) -> None:
        """Write an object whose key follows from its content; one that is there stays, unless it
        was written from other bytes."""
        try:
            self.put(key, data, absent=True)
        except Conflict:
            if not self.holds(key, hashlib.sha256(data).hexdigest(), len(data)):
                self.put(key, data)

    def upload(self, key: str, path: Path, digest: str) -> None:
        """Upload a file, in parts where it is large, unless it is there.

        Args:
            digest: SHA-256 of the file.
        """
        if self.holds(key, digest, path.stat().st_size):
            return
        extra = {"Metadata": {SHA256: digest}}
        with translated(self.url, f"write {key}"):
            self._client.upload_file(str(path), self.name, self.prefix + key, ExtraArgs=extra)

    def holds(self, key: str, digest: str, size: int) -> bool:
        """Whether there is such an object, written from a file of that digest and size in bytes."""
        try:
            found = self._ask("head_object", key)
        except Absent:
            return False
        return found["ContentLength"] == size and found["Metadata"].get(SHA256) == digest

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key."""
        try:
            self._ask("head_object", key)
        except Absent:
            return False
        return True

    def download(self, key: str, path: Path) -> bool:
        """Write an object to a new file; False where there is none."""
        try:
            with path.open("xb") as file:
                self._read(key, file)
        except Absent:
            return False
        return True

    def list(self, folder: str) -> Iterator[Listed]:
        """All objects below a folder of keys, sorted by key.

        Args:
            folder: ends with `/`; "" lists all below the prefix.
        """
        with translated(self.url, f"list {folder}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=self.prefix + folder
            )
            for page in pages:
                now = _now(page)
                for one in page.get("Contents", ()):
                    age = (now - one["LastModified"]).total_seconds()
                    key = one["Key"].removeprefix(self.prefix)
                    yield Listed(key, one["ETag"], one["Size"], age)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over."""
        names = list(keys)
        for start in range(0, len(names), DELETED_AT_ONCE):
            some = [{"Key": self.prefix + key} for key in names[start : start + DELETED_AT_ONCE]]
            with translated(self.url, f"delete {names[start]}"):
                done = self._client.delete_objects(
                    Bucket=self.name, Delete={"Objects": some, "Quiet": True}
                )
            for error in done.get("Errors", ()):
                raise of_code(self.url, f"delete {error['Key']}", str(error.get("Code", "")))

    def abort_uploads(self, older_than_s: float) -> int:
        """Remove what is left of uploads in parts that began so long ago and never ended."""
        with translated(self.url, "list uploads"):
            found = self._client.list_multipart_uploads(Bucket=self.name, Prefix=self.prefix)
            old = [
                one
                for one in found.get("Uploads", ())
                if (_now(found) - one["Initiated"]).total_seconds() > older_than_s
            ]
            for one in old:
                self._client.abort_multipart_upload(
                    Bucket=self.name, Key=one["Key"], UploadId=one["UploadId"]
                )
        return len(old)

    def check(self) -> None:
        """Raises HoiError where the bucket is missing, does not answer or may not be listed."""
        with translated(self.url, "list objects"):
            self._client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)

    @property
    def _client(self) -> Any:
        # A connection cannot be shared with the process that forked this one.
        with _CONNECTING:
            if os.getpid() not in self._clients:
                self._clients = {os.getpid(): _connect()}
            return self._clients[os.getpid()]

    def _read(self, key: str, target: BinaryIO, **condition: Any) -> Any:
        """Copy an object to a file. An answer that breaks off is asked for again, which the SDK
        does not do. Raises as `_ask`."""
        for last in (False, False, True):
            target.seek(0)
            target.truncate()
            found = self._ask("get_object", key, **condition)
            try:
                with translated(self.url, f"read {key}"):
                    for block in found["Body"].iter_chunks(BLOCK_BYTES):
                        target.write(block)
                return found
            except Unreachable:
                if last:
                    raise
        raise AssertionError

    def _ask(self, call: str, key: str, **arguments: Any) -> Any:
        """The SDK's answer to a call about one object. Raises Absent, Conflict, Unchanged, and
        HoiError as `translated`."""
        with translated(self.url, f"{'write' if call == 'put_object' else 'read'} {key}"):
            method = getattr(self._client, call)
            return method(Bucket=self.name, Key=self.prefix + key, **arguments)


def in_parallel(call: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """`call` of each value, several at a time; raises the first error."""
    wanted = list(values)
    if len(wanted) < 2:
        return [call(one) for one in wanted]
    with ThreadPoolExecutor(min(PARALLEL, len(wanted))) as pool:
        return list(pool.map(call, wanted))


def _connect() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise HoiError(
            f"a home in a bucket needs boto3: {error}", "pip install 'hoi-assets[s3]'"
        ) from error
    given = os.environ.get("AWS_MAX_ATTEMPTS")
    retries: dict[str, Any] = {"mode": "standard"} | ({} if given else {"max_attempts": ATTEMPTS})
    with translated("S3", "open the client"):
        return boto3.session.Session().client(
            "s3",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries=retries,
                max_pool_connections=PARALLEL * 2,
            ),
        )


def etag_of(data: bytes) -> str:
    """The ETag of an object of that content, unless the bucket encrypts with a key of its own."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _now(response: Any) -> datetime:
    """The server's time when it answered."""
    return parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])


def _age(response: Any) -> float:
    written = response.get("LastModified")
    return 0.0 if written is None else (_now(response) - written).total_seconds()
