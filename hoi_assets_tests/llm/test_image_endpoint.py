"""An image endpoint, well or badly behaved, behind a real HTTP server."""

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.image_endpoint import (
    REPLY_KIND,
    EndpointImage,
    ImageClient,
    crop_and_resize,
    decode_image,
    generate_images,
)
from hoi_assets.llm.reply import UnusableReply
from hoi_assets.llm.retry import EndpointError
from hoi_assets.settings import ImageEndpoint
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import KEY, Answer, Request, Server

PROMPTS = ["A hand holds a red mug.", "A robot stirs tea.", "Two hands tie a rope."]
SIZE = (64, 64)
PRICE = 0.04

Serve = Callable[..., Server]


def noise(seed: int = 0, width: int = 96, height: int = 80) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def sent(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


GOOD = sent(encoded(noise()))


def of_prompt(request: Request, number: int) -> Answer:
    """Another picture for each prompt, always the same."""
    return Answer(sent(encoded(noise(zlib.crc32(request["prompt"].encode())))))


def refused(message: str, status: int = 400) -> Answer:
    return Answer(status=status, body=json.dumps({"error": {"message": message}}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def generated(
    url: str,
    store: Store,
    prompts: list[str] | None = None,
    shown: tuple[int, int] = SIZE,
    budget: Budget | None = None,
    said: list[str] | None = None,
    **options: Any,
) -> list[EndpointImage]:
    chosen = {"model": "m", "timeout_s": 5, "concurrency": 1, **options}
    settings = ImageEndpoint(endpoint=url, **chosen)
    client = ImageClient(settings, store.images, budget)
    log = (said if said is not None else []).append
    return generate_images(PROMPTS if prompts is None else prompts, client, store, shown, log)


def codes(rows: list[EndpointImage]) -> list[str | None]:
    return [row.reason and row.reason.split(":")[0] for row in rows]


def test_one_picture_is_requested_as_the_settings_say(chat_server: Serve, store: Store) -> None:
    server = chat_server(GOOD)
    (row,) = generated(server.url, store, PROMPTS[:1], shown=(48, 32), size="1536x1024")
    (request,) = server.requests
    assert request == {
        "path": "/v1/images/generations",
        "model": "m",
        "prompt": PROMPTS[0],
        "n": 1,
        "size": "1536x1024",
        "response_format": "b64_json",
    }
    assert row.reason is None and row.pixels and len(row.image_id) == 16
    assert row.drawn_by == "m, 1536x1024 requested, 96x80 came, brought to 48x32"
    assert store.images.open(row.pixels).size == (48, 32)
    assert row.pixel_std and row.pixel_std > 1


def test_the_cached_picture_has_the_size_it_came_in(chat_server: Serve, store: Store) -> None:
    (row,) = generated(chat_server(GOOD).url, store, PROMPTS[:1], usd_per_image=PRICE)
    cached = store.ledger.get(REPLY_KIND, [row.image_id])[row.image_id]
    assert cached["value"] == digest_pixels(noise())
    assert store.images.open(cached["value"]).size == noise().size
    assert cached["cost_usd"] == PRICE and cached["model"] == "m"


def test_the_middle_is_cropped_and_scaled_and_nothing_is_stretched() -> None:
    pixels = np.zeros((40, 100, 3), dtype=np.uint8)
    # The filter reaches a few pixels over the edge of what is cropped.
    pixels[:, :20], pixels[:, 20:80], pixels[:, 80:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    made = np.asarray(crop_and_resize(Image.fromarray(pixels), (20, 20)))
    assert made.shape == (20, 20, 3)
    assert (made == (0, 255, 0)).all()
    tall = crop_and_resize(Image.fromarray(pixels.transpose(1, 0, 2)).convert("RGBA"), (20, 20))
    assert tall.mode == "RGB" and (np.asarray(tall) == (0, 255, 0)).all()
    same = noise(1, 64, 64)
    assert digest_pixels(crop_and_resize(same, (64, 64))) == digest_pixels(same)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_cut_anywhere_is_a_picture_or_no_picture_but_no_crash(kind: str) -> None:
    data = encoded(noise(2, 64, 64), kind)
    assert decode_image(sent(data)).size == (64, 64)
    rng = np.random.default_rng(0)
    refused_count = 0
    for end in [*range(64), *rng.integers(64, len(data), 40)]:
        with pytest.raises(UnusableReply):
            decode_image(sent(data[:end]))
    for _ in range(100):
        broken = bytearray(data)
        for place in rng.integers(0, min(400, len(data)), 3):
            broken[place] = rng.integers(0, 256)
        try:
            assert decode_image(sent(bytes(broken))).mode == "RGB"
        except UnusableReply as error:
            refused_count += 1
            assert " at 0x" not in str(error)
    assert refused_count


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is `side` pixels wide and high."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize(
    ("reply", "problems"),
    [
        ("!!not base64!!", "broken base64"),
        (GOOD[:-3], "broken base64"),
        (sent(b"<html><body>busy</body></html>"), "no PNG, JPEG or WebP: it begins '<html>"),
        (sent(encoded(noise())[:900]), "no readable picture"),
        (sent(encoded(noise(), "GIF")), "no PNG, JPEG or WebP"),
        (sent(bomb(20_000)), "20000x20000|exceeds limit"),
        (sent(bomb(9_000)), "9000x9000 px"),
        (sent(encoded(noise(0, 1, 1))), "1x1 px"),
        ("", "nothing instead"),
        (Answer(body='{"data": [{"b64_json": 7}]}'), "nothing instead"),
        (Answer(body='{"data": ["x"]}'), "nothing instead"),
    ],
)
def test_a_reply_that_is_no_picture_is_requested_again_then_failed(
    chat_server: Serve, store: Store, reply: Any, problems: str
) -> None:
    server = chat_server(reply)
    (row,) = generated(server.url, store, PROMPTS[:1], max_attempts=2)
    assert row.pixels is None and row.pixel_std is None
    assert (row.reason or "").startswith("no_picture: ")
    assert any(part in (row.reason or "") for part in problems.split("|")), row.reason
    assert len(server.requests) == 2
    assert store.ledger.get(REPLY_KIND, [row.image_id]) == {}
    good = chat_server(reply, GOOD)
    (row,) = generated(good.url, store, PROMPTS[:1], max_attempts=2)
    assert row.reason is None and len(good.requests) == 2


def test_pictures_are_found_again_and_only_failed_ones_requested_again(
    serve: Any, store: Store
) -> None:
    def fails_once(request: Request, number: int) -> Answer:
        return Answer("broken") if number == 1 else of_prompt(request, number)

    server = serve(fails_once)
    first = generated(server.url, store, max_attempts=1)
    assert codes(first) == [None, "no_picture", None]
    again = generated(server.url, Store(store.home), max_attempts=1)
    assert codes(again) == [None] * 3 and len(server.requests) == 4
    assert [row.image_id for row in again] == [row.image_id for row in first]
    assert again[0] == first[0] and again[2] == first[2]
    assert generated(server.url, store) == again
    assert len(server.requests) == 4


def test_another_size_of_the_tables_needs_no_call(serve: Any, store: Store) -> None:
    server = serve(of_prompt)
    first = generated(server.url, store)
    other = generated(server.url, store, shown=(32, 32))
    assert len(server.requests) == 3
    assert [row.image_id for row in other] == [row.image_id for row in first]
    assert {row.pixels for row in other}.isdisjoint(row.pixels for row in first)


def test_equal_prompts_are_requested_once(serve: Any, store: Store) -> None:
    server = serve(of_prompt)
    one, two = generated(server.url, store, [PROMPTS[0]] * 2)
    assert one == two and len(server.requests) == 1
    assert generated(server.url, store, []) == []


def test_another_model_size_or_seed_is_another_picture(serve: Any, store: Store) -> None:
    server = serve(of_prompt)
    changes: list[dict[str, Any]] = [{}, {"model": "n"}, {"size": "512x512"}, {"seed": 1}]
    ids = {
        generated(server.url, store, PROMPTS[:1], **{"model": "m", **change})[0].image_id
        for change in changes
    }
    assert len(ids) == len(server.requests) == 4


def test_a_lost_file_is_requested_again(serve: Any, store: Store) -> None:
    server = serve(lambda request, number: Answer(sent(encoded(noise(number)))))
    first = generated(server.url, store)
    cached = store.ledger.get(REPLY_KIND, [first[1].image_id])[first[1].image_id]["value"]
    store.images.path(cached).unlink()
    again = generated(server.url, store)
    assert len(server.requests) == 4
    # An endpoint gives another image each time; it keeps the name.
    assert again[1].image_id == first[1].image_id and again[1].pixels != first[1].pixels
    assert again[0] == first[0] and again[2] == first[2]
    assert generated(server.url, store) == again and len(server.requests) == 4


def test_a_busy_or_failing_server_is_retried(serve: Any, store: Store) -> None:
    def recovers(request: Request, number: int) -> Answer:
        wait = {"Retry-After": "0"}
        answers = {0: Answer(status=429, body="{}", headers=wait), 1: refused("oh", 500)}
        return answers.get(number) or of_prompt(request, number)

    server = serve(recovers)
    assert codes(generated(server.url, store, PROMPTS[:1])) == [None]
    assert len(server.requests) == 3


def test_a_wrong_key_is_named_by_its_variable_at_the_first_call(
    chat_server: Serve, store: Store
) -> None:
    server = chat_server(refused(f"wrong key {KEY}", 401))
    with pytest.raises(EndpointError, match="HOI_API_KEY") as caught:
        generated(server.url, store)
    assert KEY not in str(caught.value) and "image_endpoint.endpoint" in str(caught.value)
    assert server.keys == [f"Bearer {KEY}"]


def test_a_server_that_never_answers_fails_at_once(chat_server: Serve, store: Store) -> None:
    server = chat_server(Answer(GOOD, delay_s=1.0))
    begun = time.monotonic()
    with pytest.raises(
        EndpointError, match=r"timeout: no answer in 0.2 s[\s\S]*image_endpoint.timeout_s"
    ):
        generated(server.url, store, timeout_s=0.2, max_attempts=1)
    assert time.monotonic() - begun < 5


def test_a_later_timeout_fails_its_own_row(serve: Any, store: Store) -> None:
    def slow(request: Request, number: int) -> Answer:
        return Answer(of_prompt(request, number).text, delay_s=0.8 if number == 1 else 0)

    rows = generated(serve(slow).url, store, timeout_s=0.4, max_attempts=1)
    assert codes(rows) == [None, "timeout", None]


@pytest.mark.parametrize("body", ["<html>", '{"hello": "world"}', "[]", '{"data": []}', ""])
def test_a_page_that_is_no_image_endpoint_is_named(
    chat_server: Serve, store: Store, body: str
) -> None:
    with pytest.raises(EndpointError, match="not as an image endpoint"):
        generated(chat_server(Answer(body=body)).url, store, max_attempts=1)


def test_a_page_between_pictures_fails_its_own_row(serve: Any, store: Store) -> None:
    def page(request: Request, number: int) -> Answer:
        return Answer(body="<html>") if number == 1 else of_prompt(request, number)

    assert codes(generated(serve(page).url, store, max_attempts=1)) == [None, "malformed", None]


def test_a_refused_prompt_fails_its_own_row_and_is_not_retried(serve: Any, store: Store) -> None:
    def filtered(request: Request, number: int) -> Answer:
        return refused("content policy") if number == 0 else of_prompt(request, number)

    server = serve(filtered)
    rows = generated(server.url, store)
    assert codes(rows) == ["refused", None, None]
    assert "content policy" in (rows[0].reason or "") and len(server.requests) == 3


def test_models_that_know_no_response_format_are_called_without(serve: Any, store: Store) -> None:
    def knows_little(request: Request, number: int) -> Answer:
        if "response_format" in request:
            return refused("Unknown parameter: 'response_format'.")
        return of_prompt(request, number)

    server = serve(knows_little)
    assert codes(generated(server.url, store)) == [None] * 3
    assert len(server.requests) == 4


def test_the_estimate_is_logged_before_the_first_call_and_the_cap_kept(
    serve: Any, store: Store
) -> None:
    said: list[str] = []
    heard: list[int] = []

    def watch(request: Request, number: int) -> Answer:
        heard.append(len(said))
        return of_prompt(request, number)

    server = serve(watch)
    options = {"usd_per_image": PRICE, "budget_usd": 2 * PRICE}
    rows = generated(server.url, store, said=said, **options)
    assert codes(rows) == [None, None, "budget"]
    assert len(server.requests) == 2 and heard[0] == 1
    assert "3 pictures of 1024x1024 by m" in said[0] and "about 0.1200 USD" in said[0]
    assert "it will stop at the cap" in said[0]
    assert any("0.0800 USD spent" in line for line in said)


def test_replies_that_are_no_pictures_are_paid_for_as_well(
    chat_server: Serve, store: Store
) -> None:
    budget = Budget(10 * PRICE, None, None)
    generated(chat_server("broken").url, store, budget=budget, usd_per_image=PRICE, max_attempts=2)
    assert budget.spent_usd == pytest.approx(6 * PRICE)


def test_a_price_that_is_not_known_is_null_and_takes_no_cap(
    chat_server: Serve, store: Store
) -> None:
    said: list[str] = []
    url = chat_server(GOOD).url
    (row,) = generated(url, store, PROMPTS[:1], said=said)
    assert store.ledger.get(REPLY_KIND, [row.image_id])[row.image_id]["cost_usd"] is None
    assert "price unknown" in said[0] and "price unknown" in said[-1]
    with pytest.raises(HoiError, match=r"image_endpoint\.usd_per_image"):
        generated(url, store, budget_usd=1.0)


def test_the_cap_holds_and_order_is_kept_when_calls_run_side_by_side(
    serve: Any, store: Store
) -> None:
    def uneven(request: Request, number: int) -> Answer:
        return Answer(of_prompt(request, number).text, delay_s=0.03 * (number % 3))

    server = serve(uneven)
    prompts = [f"A hand holds {number} cups." for number in range(12)]
    budget = Budget(8 * PRICE, None, None)
    rows = generated(server.url, store, prompts, budget=budget, usd_per_image=PRICE, concurrency=4)
    assert len(server.requests) == 8 and server.most_busy > 1
    assert codes(rows).count("budget") == 4
    for prompt, row in zip(prompts, rows, strict=True):
        if row.reason is None:
            wanted = crop_and_resize(noise(zlib.crc32(prompt.encode())), SIZE)
            assert row.pixels == digest_pixels(wanted)


def test_the_key_is_stored_nowhere(serve: Any, store: Store) -> None:
    def leaky(request: Request, number: int) -> Answer:
        return refused(f"key {KEY} is bad") if number else of_prompt(request, number)

    said: list[str] = []
    url = serve(leaky).url.replace("http://", "http://user:hunter2@")
    rows = generated(url, store, said=said)
    assert codes(rows) == [None, "refused", "refused"]
    store.ledger.close()
    files = [path for path in store.home.rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files) + (repr(rows) + "".join(said)).encode()
    assert KEY.encode() not in stored and b"hunter2" not in stored


def test_no_model_is_refused_by_name(store: Store) -> None:
    with pytest.raises(HoiError, match=r"image_endpoint\.model"):
        generated("http://127.0.0.1/v1", store, model=None)
