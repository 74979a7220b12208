"""Fixtures for all tests: a chat endpoint on loopback."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hoi_assets_tests.llm.chat_server import KEY, Answer, Server

Start = Callable[..., Server]


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a server that sends the replies in turn, the last one again and again.

    A reply is an `Answer`, a text, or anything else, which is sent as JSON. A behaviour (see
    `Server`) may replace the replies afterwards: `server.behaviour = …`.
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
