"""Fetches a picture that an image endpoint names by URL instead of sending it."""

import ipaddress
import socket
import time
import urllib.request
from typing import TYPE_CHECKING

from hoi_assets.llm.bounded_http import BodyTooLarge, DeadlineExceeded, within
from hoi_assets.llm.reply import UnusableReply
from hoi_assets.llm.retry import RequestFailed

if TYPE_CHECKING:
    import httpx2

PORTS = {"http": 80, "https": 443}
RESOLVE_S = 10.0
MOST_ADDRESSES = 4
# IPv4 addresses behind a translator (RFC 6052): the last 32 bits.
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch_picture(client: "httpx2.Client", url: str, endpoint: str, code: str) -> bytes:
    """The bytes behind a URL; no credentials are sent and no redirect is followed.

    Only the endpoint's own host and port, or a public host by https, is asked: an endpoint must
    not make this machine call services of its own network. A public host's name is resolved once,
    and the checked address is the one connected to, so that a name that resolves differently the
    next time (DNS rebinding) leads nowhere else. The URL may be signed, so it is shown nowhere.

    Args:
        client: limits time and size (`bounded_client`).
        endpoint: URL of the endpoint.
        code: reason code of a failure.

    Raises:
        RequestFailed: a host that is not asked; nothing was fetched.
        UnusableReply: the picture cannot be had.
    """
    import httpx2

    try:
        asked, own = httpx2.URL(url), httpx2.URL(endpoint)
    except (httpx2.InvalidURL, ValueError):
        raise _refused(code, "it cannot be read") from None
    if _place(asked) == _place(own):
        return _body(client, client.build_request("GET", asked))
    if asked.scheme != "https":
        raise _refused(code, "it is not of the endpoint's host and port, and not https")
    addresses = _resolve(asked.raw_host.decode("ascii"), _place(asked)[2])
    if not addresses or not all(map(_is_public, addresses)):
        raise _refused(code, "its host is not a public one")
    if _by_proxy(asked.host):
        return _body(client, client.build_request("GET", asked))
    *others, last = [_pinned(client, asked, one) for one in addresses[:MOST_ADDRESSES]]
    for request in others:
        try:
            return _body(client, request)
        except _NotReached:
            continue
    return _body(client, last)


class _NotReached(UnusableReply):
    """No connection to this address."""


def _body(client: "httpx2.Client", request: "httpx2.Request") -> bytes:
    import httpx2

    kind = UnusableReply
    try:
        response = client.send(request, follow_redirects=False)
        status, body = response.status_code, response.content
    except BodyTooLarge as error:
        failed = f"too large: {error}"
    except httpx2.HTTPError as error:
        failed = f"it could not be fetched ({type(error).__name__})"
        kind = _NotReached if isinstance(error, httpx2.ConnectError) else UnusableReply
    else:
        if status == 200:
            return body
        failed = f"its host answered {status}"
    raise kind(f"a URL instead of the picture: {failed}", None)


def _pinned(client: "httpx2.Client", url: "httpx2.URL", address: Address) -> "httpx2.Request":
    """A request to one address; the host's name stays in the header and in TLS."""
    return client.build_request(
        "GET",
        url.copy_with(host=str(address)),
        headers={"Host": url.netloc.decode("ascii")},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )


def _refused(code: str, problem: str) -> RequestFailed:
    return RequestFailed(f"{code}: a URL instead of the picture: {problem}")


def _place(url: "httpx2.URL") -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, url.port or PORTS.get(url.scheme, 0)


def _resolve(host: str, port: int) -> list[Address]:
    """A host's addresses, each once; empty where there are none in time."""

    def resolve() -> list[Address]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        names = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
        return [ipaddress.ip_address(name) for name in names]

    try:
        return within(time.monotonic() + RESOLVE_S, resolve, lambda: False)
    except (DeadlineExceeded, OSError, ValueError):
        return []


def _is_public(address: Address) -> bool:
    """Whether an address, and the IPv4 address that it leads to, is one of the public network."""
    inner: Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        if address in TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return _is_public(inner)
    return address.is_global and not address.is_multicast


def _by_proxy(host: str) -> bool:
    """Whether the environment names a proxy for the host: it resolves the name itself."""
    proxies = urllib.request.getproxies()
    return bool({"https", "all"} & proxies.keys()) and not urllib.request.proxy_bypass(host)
