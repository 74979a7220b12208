"""The size of an answer is limited however it is compressed."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import httpx2
import pytest

from hoi_assets.llm.bounded_http import MIB, BodyTooLarge, bounded_client
from hoi_assets_tests.llm.chat_server import Answer, Server

LIMIT = 4 * MIB


class Coded(Server):
    """Serves one body with a Content-Encoding, in one piece."""

    def __init__(self, body: bytes, encoding: str) -> None:
        super().__init__(lambda request, number: Answer())
        self.body, self.encoding = body, encoding
        server, send = self, self.http.RequestHandlerClass.send  # type: ignore[attr-defined]

        def coded(own: object, answer: Answer, body: bytes) -> None:
            send(own, Answer(headers={"Content-Encoding": server.encoding}), server.body)

        self.http.RequestHandlerClass.send = coded  # type: ignore[attr-defined]


@pytest.fixture
def get() -> Iterator[Callable[[bytes, str], bytes]]:
    servers: list[Server] = []

    def ask(body: bytes, encoding: str) -> bytes:
        servers.append(Coded(body, encoding))
        with bounded_client(20, LIMIT) as client:
            return client.get(servers[-1].url).content

    yield ask
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", ""),
        (b"plain", "identity"),
        (gzip.compress(b"plain"), "gzip"),
        (gzip.compress(gzip.compress(b"plain")), "gzip, gzip"),
        (zlib.compress(b"plain"), "deflate"),
    ],
    # Gzip's header holds the time.
    ids=["none", "identity", "gzip", "twice", "deflate"],
)
def test_a_compressed_answer_is_read(
    get: Callable[[bytes, str], bytes], body: bytes, encoding: str
) -> None:
    assert get(body, encoding) == b"plain"


def test_an_answer_of_a_megabyte_is_read_whole(get: Callable[[bytes, str], bytes]) -> None:
    body = bytes(range(256)) * 4096
    assert get(gzip.compress(body), "gzip") == body


@pytest.mark.parametrize("times", [1, 2])
def test_a_bomb_ends_at_the_limit_before_it_is_unpacked(
    get: Callable[[bytes, str], bytes], times: int
) -> None:
    body = bytes(256 * MIB)
    for _ in range(times):
        body = gzip.compress(body, 6)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            get(body, ", ".join(["gzip"] * times))
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", "gzip"),
        (gzip.compress(bytes(10_000))[:-9], "gzip"),
        (b"plain", "br"),
    ],
    ids=["not compressed", "cut", "unknown"],
)
def test_what_cannot_be_decoded_is_an_error_of_the_transfer(
    get: Callable[[bytes, str], bytes], body: bytes, encoding: str
) -> None:
    with pytest.raises(httpx2.DecodingError):
        get(body, encoding)
