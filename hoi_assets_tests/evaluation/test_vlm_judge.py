"""A vision endpoint that rates pictures, well or badly, behind a real HTTP server."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.vlm_judge import (
    EndpointJudge,
    Rating,
    RatingRequest,
    rate_pictures,
    ratings_table,
)
from hoi_assets.hashing import digest_pixels
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.settings import Judge
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import PRICES, Answer

PROMPT = "A robot stirs tea with a wrench."
GOOD = {"rating": 4, "shows": True}


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(seed: int = 0) -> ShownImage:
    image = picture(seed)
    return ShownImage(digest_pixels(image), lambda: image)


def ask(
    url: str, *requests: RatingRequest, cache: Any = None, budget: Any = None, **options: Any
) -> list[Rating]:
    chosen = {"model": "m", "timeout_s": 5, "concurrency": 1, **options}
    judge = EndpointJudge(Judge(endpoint=url, **chosen), budget)
    asked = requests or (RatingRequest("r", PROMPT, shown()),)
    return rate_pictures(asked, judge, cache, lambda line: None)


def test_judge_sees_the_very_pixels_and_the_prompt(chat_server: Any) -> None:
    server = chat_server(GOOD)
    (row,) = ask(server.url, **PRICES)
    assert (row.rating, row.shows, row.status, row.reason) == (4, True, "accepted", None)
    assert row.model == "m" and row.cost_usd
    image, text = server.requests[0]["messages"][1]["content"]
    data = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(picture()))
    assert PROMPT in text["text"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("A lovely picture! I would give it four out of five, yes.", "no JSON object"),
        ("4", "no JSON object"),
        ("yes", "no JSON object"),
        ('{"rating": 4, "shows": true} or {"rating": 2, "shows": false}', "2 JSON objects"),
        ({"rating": 6, "shows": True}, "less than or equal to 5"),
        ({"rating": 0, "shows": False}, "greater than or equal to 1"),
        ({"rating": 3.5, "shows": True}, "rating: Input should be a valid integer"),
        ({"rating": "4", "shows": True}, "rating: Input should be a valid integer"),
        ({"rating": 4, "shows": "yes"}, "shows: Input should be a valid boolean"),
        ({"rating": 4}, "shows: Field required"),
        ({**GOOD, "why": "nice"}, "why: Extra inputs"),
        ({"rating": 5, "shows": False}, "rating 5 contradicts shows false"),
        ({"rating": 1, "shows": True}, "rating 1 contradicts shows true"),
        ('{"rating": 4, "rating": 2, "shows": true}', "given twice"),
    ],
)  # fmt: skip
def test_reply_that_cannot_be_used_is_asked_again_then_failed_and_never_a_score(
    chat_server: Any, bad: Any, told: str
) -> None:
    repaired = chat_server(bad, GOOD)
    (row,) = ask(repaired.url)
    assert (row.rating, row.shows) == (4, True)
    assert told in repaired.requests[1]["messages"][3]["content"]
    stubborn = chat_server(bad)
    (row,) = ask(stubborn.url, max_attempts=2)
    assert row.status == "failed" and (row.reason or "").startswith("unusable_reply: ")
    assert row.rating is None and row.shows is None
    assert len(stubborn.requests) == 2


def test_ratings_are_found_again_by_picture_and_prompt(chat_server: Any, tmp_path: Path) -> None:
    server = chat_server(GOOD)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    same = [RatingRequest(name, PROMPT, shown()) for name in ("a", "b")]
    other = RatingRequest("c", PROMPT, shown(1))
    first = ask(server.url, *same, other, cache=ledger)
    assert [row.row_id for row in first] == ["a", "b", "c"] and len(server.requests) == 2
    assert ask(server.url, *same, other, cache=ledger) == first
    assert len(server.requests) == 2
    ask(server.url, RatingRequest("a", "another prompt", shown()), cache=ledger)
    ask(server.url, *same, cache=ledger, seed=1)
    assert len(server.requests) == 4


def test_failed_rating_is_asked_for_again_next_time(chat_server: Any, tmp_path: Path) -> None:
    server = chat_server("Nice!", GOOD)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    (failed,) = ask(server.url, cache=ledger, max_attempts=1)
    (rated,) = ask(server.url, cache=ledger, max_attempts=1)
    assert (failed.status, rated.rating) == ("failed", 4)


def test_picture_counts_against_the_budget_before_it_is_sent(chat_server: Any) -> None:
    server = chat_server(GOOD)
    budget = Budget(0.012, 1.0, 10.0)
    (row,) = ask(server.url, budget=budget, image_tokens=50_000)
    assert row.status == "failed" and (row.reason or "").startswith("budget: judge.budget_usd")
    assert server.requests == [] and budget.spent_usd == 0


def test_endpoint_that_cannot_be_used_names_the_section(chat_server: Any) -> None:
    with pytest.raises(HoiError, match=r"judge\.model is not set"):
        EndpointJudge(Judge(endpoint="http://127.0.0.1:1/v1"))
    with pytest.raises(HoiError, match=r"judge\.endpoint .* answered 404"):
        ask(chat_server(Answer(status=404, body="{}")).url)


def test_table_holds_rated_and_failed_pictures(chat_server: Any) -> None:
    rows = [*ask(chat_server(GOOD).url), *ask(chat_server("no").url, max_attempts=1)]
    table = ratings_table(rows)
    assert table["rating"].to_list() == [4, None]
    assert table["status"].to_list() == ["accepted", "failed"]
    assert ratings_table([]).schema == table.schema
