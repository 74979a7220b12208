"""The HTTP client below the OpenAI client: one deadline per exchange, and a limit of its size.

httpx's timeouts hold per read, so a server that sends a byte now and then would outlive them.
"""

import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx2

MIB = 2**20
# How often a waiting call looks whether the run has ended, in seconds.
POLL_S = 0.5
# Sent as `Accept-Encoding`.
ACCEPTED_ENCODING = "gzip"
# `wbits` of zlib by Content-Encoding.
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# Most bytes that one step of decoding makes: a kilobyte can hold a megabyte.
DECODED_PART = 64 * 1024
# Headers of the body as it was sent; the body is decoded here.
ENCODING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})

Value = TypeVar("Value")


class BodyTooLarge(Exception):
    """The server's answer exceeds the limit."""


class UnknownEncoding(Exception):
    """The body has a Content-Encoding that nobody asked for."""


class DeadlineExceeded(Exception):
    """No complete answer in time, or the run has ended."""


def bounded_client(
    timeout_s: float, max_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> "httpx2.Client":
    """A client whose exchanges end in time, whatever the server does.

    Args:
        timeout_s: of a whole exchange: connecting, sending, headers and body.
        max_bytes: of a decoded body.
        stopped: whether nobody waits for answers any more.

    A call raises BodyTooLarge, httpx2.ReadTimeout once the deadline has passed,
    httpx2.DecodingError where the body is not what its Content-Encoding says, and what httpx2
    raises.
    """
    import httpx2
    import openai

    class BoundedClient(openai.DefaultHttpxClient):
        def send(
            self, request: httpx2.Request, *, stream: bool = False, **more: Any
        ) -> httpx2.Response:
            deadline = time.monotonic() + timeout_s

            def exchange() -> httpx2.Response:
                response = super(BoundedClient, self).send(request, stream=True, **more)
                try:
                    encoding = response.headers.get("content-encoding", "")
                    parts = _decoded(response.iter_raw(), encoding)
                    body = _read_body(parts, deadline, max_bytes)
                except (zlib.error, UnknownEncoding) as error:
                    raise httpx2.DecodingError(str(error), request=request) from error
                finally:
                    response.close()
                headers = response.headers.multi_items()
                kept = [item for item in headers if item[0].lower() not in ENCODING_HEADERS]
                return httpx2.Response(
                    response.status_code, headers=kept, content=body, request=response.request
                )

            try:
                return within(deadline, exchange, stopped)
            except DeadlineExceeded as error:
                raise httpx2.ReadTimeout(str(error), request=request) from None

    return BoundedClient(timeout=timeout_s, headers={"Accept-Encoding": ACCEPTED_ENCODING})


def _decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body in small parts; httpx decodes each chunk whole, however much it holds."""
    names = [name.strip().lower() for name in encoding.split(",")]
    coded = [name for name in names if name not in ("", "identity")]
    for name in reversed(coded):
        if name not in WINDOWS:
            raise UnknownEncoding(f"the body is {name}, {ACCEPTED_ENCODING} was accepted")
        chunks = _inflated(chunks, WINDOWS[name])
    yield from chunks


def _inflated(chunks: Iterable[bytes], window: int) -> Iterator[bytes]:
    decoder, begun = zlib.decompressobj(window), False
    for chunk in chunks:
        begun = begun or bool(chunk)
        left = chunk
        while left and not decoder.eof:
            yield decoder.decompress(left, DECODED_PART)
            left = decoder.unconsumed_tail
    if begun and not decoder.eof:
        raise zlib.error("the compressed body ends too soon")


def _read_body(chunks: Iterable[bytes], deadline: float, max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge(f"the answer is larger than {max_bytes / MIB:g} MiB")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the body was not complete in time")
    return bytes(body)


def within(deadline: float, work: Callable[[], Value], stopped: Callable[[], bool]) -> Value:
    """What `work` returns or raises, if it ends before the deadline (of `time.monotonic`).

    It runs in a thread of its own: nothing else can interrupt headers that trickle or a host name
    that is not resolved.

    Raises:
        DeadlineExceeded: it did not, or nobody waits any more.
    """
    ended: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((work(), None))
        except BaseException as error:
            ended.put((None, error))

    threading.Thread(target=run, name="hoi-endpoint-call", daemon=True).start()
    while not stopped():
        left = deadline - time.monotonic()
        try:
            value, error = ended.get(timeout=max(0.0, min(POLL_S, left)))
        except queue.Empty:
            if left <= POLL_S:
                break
            continue
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
    raise DeadlineExceeded("no complete answer in time")
