"""A hub on loopback: real HTTP, with the answers of the Hugging Face Hub's API.

Serves `/api/models/{repo}/revision/{revision}` and `/{repo}/resolve/{revision}/{file}` with HEAD,
GET, Range and ETag.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE_BYTES = 4096  # files from this size on are LFS files, known by their SHA-256
BLOCK_BYTES = 16 << 10


@dataclass
class Repository:
    """A repository with one commit.

    Attributes:
        gated: only requests with `token` get files.
        lacks: files that are listed and cannot be fetched.
        damaged: files that arrive with another last byte.
    """

    folder: Path
    revision: str
    gated: bool = False
    lacks: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}


@dataclass
class Request:
    method: str
    path: str
    range_start: int | None


@dataclass
class Hub:
    """The server; `requests` are those that came, in order."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "hf_loopback"
    block_pause_s: float = 0.0
    requests: list[Request] = field(default_factory=list)

    closed: bool = False

    def __post_init__(self) -> None:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def starts(self, name: str) -> list[int]:
        """Where each GET of a file began, in bytes."""
        return [
            request.range_start or 0
            for request in self.requests
            if request.method == "GET" and request.path.endswith(f"/{name}")
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        if self.hub.closed:  # a connection that is kept alive
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else None
        self.hub.requests.append(Request(self.command, path, start))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision/([^/]+)|auth-check)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repository = self.hub.repositories.get((api or file or [""] * 2)[1])
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif api is not None and api[2] == "auth-check":
            if self._allowed(repository):
                self._send(200, b"OK", {})
        elif api is not None:
            self._send_info(api[1], api[3], repository)
        elif file is not None and file[2] != repository.revision:
            self._refuse(404, "RevisionNotFound")
        elif file is not None and (
            file[3] not in repository.files() or file[3] in repository.lacks
        ):
            self._refuse(404, "EntryNotFound")
        elif file is not None and self._allowed(repository):
            self._send_file(repository, file[3], start, with_body)

    def _allowed(self, repository: Repository) -> bool:
        if not repository.gated or self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        return False

    def _send_info(self, name: str, revision: str, repository: Repository) -> None:
        if revision != repository.revision:
            return self._refuse(404, "RevisionNotFound")
        siblings = []
        for path, place in repository.files().items():
            data = place.read_bytes()
            one: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": _git_hash(data)}
            if len(data) >= LARGE_BYTES:
                sha = hashlib.sha256(data).hexdigest()
                one["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 130}
            siblings.append(one)
        body = {
            "id": name,
            "sha": revision,
            "gated": "auto" if repository.gated else False,
            "siblings": siblings,
        }
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send_file(
        self, repository: Repository, name: str, start: int | None, with_body: bool
    ) -> None:
        data = repository.files()[name].read_bytes()
        large = len(data) >= LARGE_BYTES
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest() if large else _git_hash(data)}"',
            "X-Repo-Commit": repository.revision,
            "Accept-Ranges": "bytes",
        }
        if name in repository.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if start is None:
            self._send(200, data, headers, with_body)
        else:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers, with_body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body or self.command == "HEAD":
            return
        for place in range(0, len(body), BLOCK_BYTES):
            try:
                self.wfile.write(body[place : place + BLOCK_BYTES])
            except (BrokenPipeError, ConnectionResetError):
                return
            if len(body) > BLOCK_BYTES:
                time.sleep(self.hub.block_pause_s)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
