"""A server whose behaviour is a function of the request and its number."""

from collections.abc import Callable

import pytest

from hoi_assets_tests.llm.chat_server import Answer, Request, Server
from hoi_assets_tests.llm.colours import Serve


@pytest.fixture
def serve(chat_server: Callable[..., Server]) -> Serve:
    def start(behaviour: Callable[[Request, int], Answer]) -> Server:
        server = chat_server("")
        server.behaviour = behaviour
        return server

    return start
