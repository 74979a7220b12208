"""A loopback server that speaks the OpenAI chat and images APIs, well or badly behaved."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hoi_assets.llm import client, throttle

KEY = "sk-very-secret-0123456789"
PRICES = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 10.0}
USAGE = {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400}
REPLY_COST = (300 * 1.0 + 100 * 10.0) / 1e6

Request = dict[str, Any]
Behaviour = Callable[[Request, int], "Answer"]


@dataclass
class Answer:
    """What the server sends: a chat completion's text (an image's base64), or a status and body."""

    text: str = ""
    status: int = 200
    body: str | None = None
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    finish: str = "stop"
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    trickle_s: float = 0.0  # between the bytes of the body
    model: str | None = None  # that answers; None: the requested one
    cut: bool = False  # end the connection without an answer


class Server:
    """A chat and image endpoint on loopback; `behaviour(request, number)` decides each answer.

    `requests` and `keys` are the bodies and Authorization headers received, `times` when, and
    `most_busy` the most requests handled at once. `files` are served to GET by their path (a
    function is given the Authorization header), and `fetched` and `hosts` are the paths that were
    asked for, with their Host headers.
    """

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.files: dict[str, Answer | bytes | Callable[[str | None], Answer]] = {}
        self.fetched: list[str] = []
        self.hosts: list[str | None] = []
        self.busy = self.most_busy = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                request = json.loads(self.rfile.read(length))
                with lock:
                    number = len(server.requests)
                    server.requests.append({**request, "path": self.path})
                    server.keys.append(self.headers.get("Authorization"))
                    server.times.append(time.monotonic())
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                answer = server.behaviour(request, number)
                time.sleep(answer.delay_s)
                image = self.path.partition("?")[0].endswith("/images/generations")
                form = server.image if image else server.completion
                body = answer.body if answer.body is not None else form(request, answer)
                with lock:
                    server.busy -= 1
                if answer.cut:
                    self.close_connection = True
                else:
                    self.send(answer, body.encode())

            def do_GET(self) -> None:
                with lock:
                    server.fetched.append(self.path)
                    server.hosts.append(self.headers.get("Host"))
                found = server.files.get(self.path, Answer(status=404))
                if callable(found):
                    found = found(self.headers.get("Authorization"))
                if isinstance(found, bytes):
                    self.send(Answer(), found)
                else:
                    self.send(found, (found.body or "").encode())

            def send(self, answer: Answer, body: bytes) -> None:
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", "application/json")
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    step = 1 if answer.trickle_s else max(1, len(body))
                    for start in range(0, len(body), step):
                        self.wfile.write(body[start : start + step])
                        time.sleep(answer.trickle_s)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        if not port:
            self._forget_predecessors()
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def _forget_predecessors(self) -> None:
        """What this process learnt of a server that had the same port: its pauses, its bills."""
        place = self.url.removesuffix("/v1")
        for endpoint in [one for one in throttle._throttles if place in one]:
            del throttle._throttles[endpoint]
        for shared in [one for one in client._budgets if place in str(one)]:
            del client._budgets[shared]

    @staticmethod
    def completion(request: Request, answer: Answer) -> str:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        model = answer.model or request["model"]
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps({**head, "choices": [choice], "usage": answer.usage})

    @staticmethod
    def image(request: Request, answer: Answer) -> str:
        return json.dumps({"created": 0, "data": [{"b64_json": answer.text}]})

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
