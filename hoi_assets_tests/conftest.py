"""A real chat endpoint on loopback for every test of this folder that asks for one."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hoi_assets_tests.ppv.test_endpoint_prompter import KEY, Answer, Server

Start = Callable[..., Server]


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a server that gives each reply in turn, the last one again and again.

    A reply is an `Answer`, a text, or anything else, which is said as JSON.
    """
    monkeypatch.setenv("HOI_API_KEY", KEY)
    servers: list[Server] = []

    def start(*replies: Any) -> Server:
        def behaviour(request: dict[str, Any], number: int) -> Answer:
            reply = replies[min(number, len(replies) - 1)]
            if isinstance(reply, Answer):
                return reply
            return Answer(reply if isinstance(reply, str) else json.dumps(reply))

        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
