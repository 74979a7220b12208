"""Pictures that come in another form, from another place or in another size than asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from hoi_assets.hashing import digest_pixels
from hoi_assets.llm.image_endpoint import EndpointImage, ImageClient, crop_and_resize
from hoi_assets.settings import ImageEndpoint
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import KEY, Answer, Server
from hoi_assets_tests.llm.colours import Serve
from hoi_assets_tests.llm.test_image_endpoint import (
    GOOD,
    PRICE,
    PROMPTS,
    SIZE,
    encoded,
    generated,
    noise,
    sent,
)

EXPECTED = digest_pixels(crop_and_resize(noise(), SIZE))
SIGNED = "/picture.png?sig=canary-0123456789"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def one(server: Server, store: Store, **more: Any) -> EndpointImage:
    (row,) = generated(server.url, store, PROMPTS[:1], **{"max_attempts": 2, **more})
    return row


def by_url(serve: Serve, url: str = "") -> Server:
    """An endpoint that names its pictures by URL; "" for one of its own."""

    def behaviour(request: Any, number: int) -> Answer:
        own = server.url.removesuffix("/v1") + SIGNED
        return Answer(body=json.dumps({"data": [{"url": url or own}]}))

    server = serve(behaviour)
    return server


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "data:image/webp;charset=utf-8;base64,",
        "DATA:;base64,",
        "data:image/png;base64,\n",
    ],
)
@pytest.mark.parametrize("field", ["b64_json", "url"])
def test_a_data_uri_is_a_picture_and_is_paid_for_once(
    serve: Serve, store: Store, head: str, field: str
) -> None:
    body = json.dumps({"data": [{field: head + GOOD}]})
    server = serve(lambda request, number: Answer(body=body))
    row = one(server, store)
    assert row.reason is None and row.pixels == EXPECTED
    assert len(server.requests) == 1


def test_a_picture_named_by_url_is_fetched_once_without_the_key(serve: Serve, store: Store) -> None:
    server = by_url(serve)
    server.files[SIGNED] = encoded(noise())
    row = one(server, store)
    assert row.reason is None and row.pixels == EXPECTED
    assert server.fetched == [SIGNED] and len(server.requests) == 1
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://127.0.0.1:{other}/x.png",
        "https://127.0.0.1:{other}/x.png",
        "http://localhost:{own}/x.png",
        "https://localhost/x.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x.png",
        "https://10.0.0.1/x.png",
        "http://example.com/x.png",
        "//127.0.0.1/x.png",
        "https://[x/",
        "ftp://example.com/x.png",
    ],
)
def test_no_other_host_of_this_network_is_asked_for_a_picture(
    serve: Serve, store: Store, url: str
) -> None:
    other = serve(lambda request, number: Answer())
    server = serve(lambda request, number: Answer(body=json.dumps({"data": [{"url": url}]})))
    url = url.format(other=other.http.server_port, own=server.http.server_port)
    row = one(server, store)
    assert (row.reason or "").startswith("no_picture: a URL instead of the picture: ")
    assert other.fetched == server.fetched == []
    # Another try would be paid for and name the same host.
    assert len(server.requests) == 1


def test_a_redirect_to_another_host_is_not_followed(serve: Serve, store: Store) -> None:
    other = serve(lambda request, number: Answer())
    server = by_url(serve)
    target = other.url.removesuffix("/v1") + "/x.png"
    server.files[SIGNED] = Answer(status=302, headers={"Location": target})
    row = one(server, store)
    assert row.reason == (
        "no_picture: a URL instead of the picture: its host answered 302 (2 attempts)"
    )
    assert other.fetched == []


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"x" * 300_001, "larger than"),
        (b"<html>", "no PNG, JPEG or WebP"),
        (Answer(status=404), "answered 404"),
        (Answer(status=204, headers={"Content-Encoding": "gzip"}), "instead of the picture"),
    ],
)
def test_what_is_behind_the_url_fails_its_row_and_is_named_without_the_url(
    serve: Serve,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    file: Answer | bytes,
    problem: str,
) -> None:
    monkeypatch.setattr(ImageClient, "max_body_bytes", 300_000)
    server = by_url(serve)
    server.files[SIGNED] = file
    row = one(server, store)
    assert (row.reason or "").startswith("no_picture: ") and problem in (row.reason or "")
    assert "canary" not in repr(row)


def test_a_fetched_picture_that_trickles_ends_at_the_deadline(serve: Serve, store: Store) -> None:
    server = by_url(serve)
    server.files[SIGNED] = Answer(body="x" * 1000, trickle_s=0.05)
    row = one(server, store, max_attempts=1, timeout_s=0.5)
    assert "could not be fetched (ReadTimeout)" in (row.reason or "")


def test_another_size_than_asked_for_is_recorded_and_logged(serve: Serve, store: Store) -> None:
    server = serve(lambda request, number: Answer(GOOD))
    said: list[str] = []
    (row,) = generated(server.url, store, PROMPTS[:1], said=said, size="512x512")
    assert row.drawn_by == "m, 512x512 requested, 96x80 came, brought to 64x64"
    assert any("1 pictures did not come in the requested size 512x512" in line for line in said)
    assert generated(server.url, store, PROMPTS[:1], size="512x512") == [row]
    assert len(server.requests) == 1
    said.clear()
    right = serve(lambda request, number: Answer(sent(encoded(noise(0, 128, 128)))))
    (row,) = generated(right.url, store, PROMPTS[:1], said=said, size="128x128")
    assert row.drawn_by == "m, 128x128 brought to 64x64"
    assert not any("requested size" in line for line in said)


def test_a_filtered_prompt_is_not_paid_for_or_asked_again(serve: Serve, store: Store) -> None:
    body = json.dumps({"error": {"code": "content_policy_violation", "message": "no"}})
    server = serve(lambda request, number: Answer(status=400, body=body))
    first = one(server, store, usd_per_image=PRICE)
    assert (first.reason or "").startswith("filtered: ")
    assert one(server, store, usd_per_image=PRICE) == first and len(server.requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [
        ("http://127.0.0.1:8000/v1", "040fcea693be958c"),
        ("https://user:pw@api.example.com/v1/", "c4aaf2dedb15e36b"),
        ("http://h", "8438c693c5927ce6"),
    ],
)
def test_pictures_paid_for_earlier_keep_their_keys(store: Store, endpoint: str, key: str) -> None:
    options = ImageEndpoint(endpoint=endpoint, model="m")
    assert ImageClient(options, store.images).key("a mug") == key


@pytest.mark.parametrize("colour", ["red", "white", "#123456"])
def test_a_picture_of_one_colour_has_no_deviation(serve: Serve, store: Store, colour: str) -> None:
    flat = sent(encoded(Image.new("RGB", (64, 64), colour)))
    server = serve(lambda request, number: Answer(flat))
    assert one(server, store).pixel_std == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "large"},
        {"size": "0x0"},
        {"size": "1024×1024"},
        {"size": "99999x99999"},
        {"usd_per_image": -1},
        {"usd_per_million_input_tokens": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageEndpoint(endpoint="http://127.0.0.1/v1", model="m", **wrong)
