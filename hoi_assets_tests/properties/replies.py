"""Replies of endpoints: arbitrary bytes never crash, and never become a verdict."""

import json
from typing import Any

from hypothesis import strategies as st

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.vlm_judge import EndpointJudge, RatingRequest
from hoi_assets.llm.completion import read_completion
from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.llm.retry import Busy, RequestFailed, TransientError
from hoi_assets.settings import Judge
from hoi_assets_tests.llm.chat_server import Answer, Server
from hoi_assets_tests.llm.colours import ask
from hoi_assets_tests.properties.examples import for_all

FAILURES = (UnusableReply, RequestFailed, TransientError, Busy)
JUDGE = EndpointJudge(Judge(endpoint="http://127.0.0.1:9/v1", model="m"))
REQUEST = RatingRequest("row", "a hand", None)  # type: ignore[arg-type]
PIECES = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "<think>",
    "</think>",
    "```json",
    "```",
    "\\",
    "NaN",
    "1e999",
    '{"rating": 4, "shows": true}',
    '"rating"',
    "null",
    "\ud800",
    "\x00",
    "ok",
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "text",
                    "type",
                    "message",
                    "refusal",
                    "error",
                    "choices",
                    "finish_reason",
                    "reasoning",
                    "rating",
                    "shows",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ratings = st.dictionaries(
    st.sampled_from(["rating", "shows", "reason"]),
    st.integers(-1, 7)
    | st.booleans()
    | st.none()
    | st.sampled_from(["4", "true", 4.0, 4.5, [], {}]),
    max_size=3,
)
around = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@for_all(
    st.text()
    | st.binary().map(lambda b: b.decode("latin-1"))
    | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
)
def any_text_is_one_object_or_unusable(text: str) -> None:
    try:
        assert isinstance(parse_json_object(text), dict)
    except UnusableReply as failure:
        assert str(failure)


@for_all(ratings, st.booleans(), around, around)
def a_rating_is_exactly_what_was_asked_for(
    fields: dict[str, Any], bare: bool, before: str, after: str
) -> None:
    text = json.dumps(fields) if bare else f"{before}{json.dumps(fields)}{after}"
    rating, shows = fields.get("rating"), fields.get("shows")
    valid = (
        fields.keys() == {"rating", "shows"}
        and type(rating) is int
        and type(shows) is bool
        and 1 <= rating <= 5
        and (rating, shows) not in ((5, False), (1, True))
    )
    try:
        found = JUDGE.parse(REQUEST, text)
    except UnusableReply:
        assert not (valid and bare)
        return
    # Among words there may be another whole answer; then that one was taken.
    other = (found.rating, found.shows) == (4, True) and PIECES[14] in before + after
    assert valid or other
    assert other or (found.rating, found.shows) == (rating, shows)


@for_all(values)
def any_body_has_a_text_or_a_named_failure(choices: Any) -> None:
    try:
        assert read_completion({"choices": choices}).strip()
    except FAILURES as failure:
        assert str(failure)


@for_all(
    st.binary(max_size=300) | values.map(lambda v: json.dumps(v).encode()),
    st.sampled_from([200, 200, 201, 204, 400, 404, 422, 500]),
)
def any_bytes_from_a_server_end_as_a_reason(body: bytes, status: int) -> None:
    server = Server(lambda request, number: Answer(status=status, body=body.decode("latin-1")))
    try:
        found = ask(server.url, 1, max_attempts=1)
        assert found.replies[0].value is None and found.replies[0].reason
    except HoiError as error:
        assert error.what and error.remedy
    finally:
        server.close()
