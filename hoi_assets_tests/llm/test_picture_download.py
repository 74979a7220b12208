"""A picture's URL leads to the address that was checked, whatever its host's name says later."""

import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hoi_assets.llm.picture_download import fetch_picture
from hoi_assets.llm.retry import RequestFailed
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import Answer, Server
from hoi_assets_tests.llm.colours import Serve
from hoi_assets_tests.llm.test_image_endpoint import encoded, noise
from hoi_assets_tests.llm.test_image_replies import EXPECTED, SIGNED, one

HOST = "pictures.example"
PUBLIC, OTHER_PUBLIC = "93.184.216.34", "93.184.216.35"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@dataclass
class Network:
    """The public network of the tests: names, and where connections to public addresses end.

    Attributes:
        answers: addresses of `HOST`, for each time that it is resolved; the last one stays.
        routes: the local port behind a public address; none: the connection is refused.
        resolved: how often `HOST` was.
        connected: places that were connected to.
    """

    answers: list[list[str]] = field(default_factory=list)
    routes: dict[str, int] = field(default_factory=dict)
    resolved: int = 0
    connected: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    net = Network()
    getaddrinfo, create_connection = socket.getaddrinfo, socket.create_connection

    def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host not in (HOST, HOST.encode()):
            return getaddrinfo(host, port, *more, **options)
        found = net.answers[min(net.resolved, len(net.answers) - 1)]
        net.resolved += 1
        family = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (family[ipaddress.ip_address(one).version], socket.SOCK_STREAM, 6, "", (one, port))
            for one in found
        ]

    def connect(address: tuple[str, int], *more: Any, **options: Any) -> socket.socket:
        host, port = address
        if host != "127.0.0.1":
            net.connected.append((host, port))
            if host not in net.routes:
                raise ConnectionRefusedError(host)
            address = ("127.0.0.1", net.routes[host])
        return create_connection(address, *more, **options)

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    return net


def certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate with its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    data = key.private_bytes(pem, form, serialization.NoEncryption()) + made.public_bytes(pem)
    path = folder / f"{host}.pem"
    path.write_bytes(data)
    return path


@dataclass
class SecureServer:
    """A picture server by https; `named` are the names that TLS asked for."""

    server: Server
    named: list[str | None] = field(default_factory=list)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Iterator[SecureServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path, HOST)))
    found = SecureServer(serve(lambda request, number: Answer()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / f"{HOST}.pem")

    def note(sock: Any, name: str | None, context: ssl.SSLContext) -> None:
        found.named.append(name)

    context.sni_callback = note
    http = found.server.http
    http.socket = context.wrap_socket(http.socket, server_side=True)
    found.server.files[SIGNED] = encoded(noise())
    yield found


def endpoint_naming(serve: Serve, url: str) -> Server:
    return serve(lambda request, number: Answer(body=json.dumps({"data": [{"url": url}]})))


def test_a_name_that_resolves_differently_the_next_time_leads_to_the_checked_address(
    serve: Serve, store: Store, network: Network, secure: SecureServer
) -> None:
    network.answers = [[PUBLIC], ["127.0.0.1"]]
    network.routes = {PUBLIC: secure.server.http.server_port}
    row = one(endpoint_naming(serve, f"https://{HOST}{SIGNED}"), store)
    assert row.reason is None and row.pixels == EXPECTED
    assert network.resolved == 1 and network.connected == [(PUBLIC, 443)]
    # The name stays in TLS, where the certificate is checked, and in the request.
    assert secure.named == [HOST] and secure.server.hosts == [HOST]


def test_the_next_address_is_tried_where_one_cannot_be_reached(
    serve: Serve, store: Store, network: Network, secure: SecureServer
) -> None:
    network.answers = [[OTHER_PUBLIC, PUBLIC]]
    network.routes = {PUBLIC: secure.server.http.server_port}
    row = one(endpoint_naming(serve, f"https://{HOST}:8443{SIGNED}"), store)
    assert row.reason is None and secure.server.hosts == [f"{HOST}:8443"]
    assert network.connected == [(OTHER_PUBLIC, 8443), (PUBLIC, 8443)]


def test_a_certificate_of_another_name_is_refused(
    serve: Serve, store: Store, network: Network, secure: SecureServer
) -> None:
    network.routes = {PUBLIC: secure.server.http.server_port}
    row = one(endpoint_naming(serve, f"https://{PUBLIC}{SIGNED}"), store)
    assert "could not be fetched" in (row.reason or "") and secure.server.fetched == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["fd00::1"],
        ["fe80::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        [],
    ],
)
def test_a_name_with_an_address_of_this_network_is_not_connected_to(
    network: Network, addresses: list[str]
) -> None:
    import httpx2

    network.answers = [addresses]
    with httpx2.Client() as client, pytest.raises(RequestFailed, match="not a public one"):
        fetch_picture(client, f"https://{HOST}/x.png", "http://127.0.0.1:9/v1", "no_picture")
    assert network.connected == []


@pytest.mark.parametrize(
    "url",
    ["https://2130706433/x", "https://0x7f.1/x", "https://127.1/x", f"https://{HOST}@127.0.0.1/x"],
)
def test_other_spellings_of_loopback_are_not_connected_to(network: Network, url: str) -> None:
    import httpx2

    with httpx2.Client() as client, pytest.raises(RequestFailed, match="instead of the picture"):
        fetch_picture(client, url, "http://127.0.0.1:9/v1", "no_picture")
    assert network.connected == []


def test_a_redirect_of_a_public_host_is_not_followed(
    serve: Serve, store: Store, network: Network, secure: SecureServer
) -> None:
    network.answers = [[PUBLIC]]
    network.routes = {PUBLIC: secure.server.http.server_port}
    inner = serve(lambda request, number: Answer())
    location = {"Location": inner.url.removesuffix("/v1") + "/x.png"}
    secure.server.files[SIGNED] = Answer(status=302, headers=location)
    row = one(endpoint_naming(serve, f"https://{HOST}{SIGNED}"), store, max_attempts=1)
    assert "its host answered 302" in (row.reason or "") and inner.fetched == []
