"""Fetches a picture that an image endpoint names by URL instead of sending it."""

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from hoi_assets.llm.bounded_http import BodyTooLarge
from hoi_assets.llm.reply import UnusableReply
from hoi_assets.llm.retry import RequestFailed

if TYPE_CHECKING:
    import httpx2

PORTS = {"http": 80, "https": 443}


def fetch_picture(client: "httpx2.Client", url: str, endpoint: str, code: str) -> bytes:
    """The bytes behind a URL; no credentials are sent and no redirect is followed.

    Only the endpoint's own host and port, or a public host by https, is asked: an endpoint must
    not make this machine call services of its own network. The URL may be signed, so it is shown
    nowhere.

    Args:
        client: limits time and size (`bounded_client`).
        endpoint: URL of the endpoint.
        code: reason code of a failure.

    Raises:
        RequestFailed: a host that is not asked; nothing was fetched.
        UnusableReply: the picture cannot be had.
    """
    problem = _refusal(url, endpoint)
    if problem is not None:
        raise RequestFailed(f"{code}: a URL instead of the picture: {problem}")
    import httpx2

    try:
        response = client.get(url, follow_redirects=False)
        status, body = response.status_code, response.content
    except BodyTooLarge as error:
        failed = f"too large: {error}"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        failed = f"it could not be fetched ({type(error).__name__})"
    else:
        if status == 200:
            return body
        failed = f"its host answered {status}"
    raise UnusableReply(f"a URL instead of the picture: {failed}", None)


def _refusal(url: str, endpoint: str) -> str | None:
    """Why a URL is not fetched; None where it is."""
    try:
        parts, own = urlsplit(url), urlsplit(endpoint)
        place, own_place = _place(parts), _place(own)
    except ValueError:
        return "it cannot be read"
    if place == own_place:
        return None
    if parts.scheme != "https":
        return "it is not of the endpoint's host and port, and not https"
    if not _is_public(parts.hostname or "", place[2]):
        return "its host is not a public one"
    return None


def _place(parts: SplitResult) -> tuple[str, str, int]:
    port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    return parts.scheme, parts.hostname or "", port


def _is_public(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return bool(addresses) and all(address.is_global for address in addresses)
