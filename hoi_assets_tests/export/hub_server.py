"""The part of the Hugging Face hub that an upload of small files uses, on loopback.

It answers as the hub's public API documents: create a repository, say how each file is to be sent,
take a commit. Files of the Xet storage are not served: none here is large or binary enough.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """`files` by repository and name; `commits` counts; `fail` may refuse a request."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.kinds: dict[str, dict[str, Any]] = {}
        self.sent: list[str] = []
        self.commits = 0
        self.tokens: set[str] = set()
        self.fail: Callable[[str], int | None] = lambda _: None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self._answer(hub.get(self.path))

            def do_POST(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.tokens.add(self.headers.get("Authorization", ""))
                code = hub.fail(self.path)
                self._answer((code, {"error": "refused"}) if code else hub.post(self.path, body))

            def _answer(self, answer: tuple[int, Any]) -> None:
                data = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, path: str) -> tuple[int, Any]:
        parts = path.split("?")[0].strip("/").split("/")
        if parts[:2] in (["api", "datasets"], ["api", "models"]) and len(parts) >= 4:
            repo = "/".join(parts[2:4])
            if repo in self.files:
                return 200, {"id": repo, "sha": "0" * 40, "siblings": [], "private": True}
        return 404, {"error": f"not here: {path}"}

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.split("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.kinds[repo] = asked
            url = f"{self.url}/{'datasets/' if asked.get('type') == 'dataset' else ''}{repo}"
            if repo in self.files:
                return 409, {"error": "You already created this repo", "url": url}
            self.files[repo] = {}
            return 200, {"url": url, "id": repo}
        if parts == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}
        if len(parts) < 5:
            return 404, {"error": f"not here: {path}"}
        repo = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                | self._known(repo, one["path"])
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        if parts[4] == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[repo][value["path"]] = base64.b64decode(value["content"])
                    self.sent.append(value["path"])
            self.commits += 1
            oid = hashlib.sha1(body).hexdigest()
            url = f"{self.url}/{'datasets/' if parts[1] == 'datasets' else ''}{repo}/commit/{oid}"
            return 200, {"success": True, "commitOid": oid, "commitUrl": url}
        return 404, {"error": f"not here: {path}"}

    def _known(self, repo: str, path: str) -> dict[str, str]:
        data = self.files[repo].get(path)
        return {} if data is None else {"oid": git_oid(data)}
