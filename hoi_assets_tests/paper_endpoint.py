"""A loopback endpoint that plays all the language models of the published protocols, by schema.

What it says of a picture depends on the picture, so that candidates differ.
"""

import json
import re
import zlib
from typing import Any

from hoi_assets_tests.llm.chat_server import Answer, Request

COMPONENTS = (
    {"subject": "a hand", "relation": "holds", "object": "a red ball"},
    {"subject": "the ball", "relation": "is on", "object": "a green box"},
)


def wanted(request: Request) -> frozenset[str]:
    """Names of the fields that a reply must have."""
    return frozenset(request["response_format"]["json_schema"]["schema"]["properties"])


def said(request: Request) -> str:
    """The text of the user's first message."""
    content = request["messages"][1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def shown(request: Request) -> bool:
    """Whether the request shows a picture."""
    return not isinstance(request["messages"][1]["content"], str)


def answer(request: Request, number: int) -> Answer:
    """A usable reply to any of the requests."""
    return Answer(json.dumps(_reply(wanted(request), request)))


def _reply(fields: frozenset[str], request: Request) -> dict[str, Any]:
    chance = zlib.crc32(json.dumps(request["messages"]).encode()) % 100
    if fields == {"components"}:
        asked = [f"Does {one['subject']} {one['relation']} {one['object']}?" for one in COMPONENTS]
        told = zip(COMPONENTS, asked, strict=True)
        return {"components": [one | {"question": question} for one, question in told]}
    if fields == {"findings", "others"}:
        return {"findings": [_finding(n, chance) for n in (1, 2)], "others": []}
    if fields == {"issues", "prompt"}:
        issue = {"problem": "a finger is missing", "correction": "The hand has five fingers."}
        return {"issues": [issue], "prompt": f"{_prompt(request)} {issue['correction']}"}
    if fields == {"prompt"}:
        seen = "closer" if shown(request) else "in daylight"
        return {"prompt": f"{_prompt(request).rstrip('.')}, {seen}"}
    if fields == {"answer"}:  # `hoi doctor` shows a red picture
        return {"answer": "red"}
    if fields == {"rating", "shows"}:
        return {"rating": 2 + chance % 3, "shows": chance % 2 == 0}
    suggested = json.loads(said(request).splitlines()[-1])
    named = re.search(r'^Object: "(.*)"$', said(request), re.MULTILINE)
    assert named is not None
    return {**dict.fromkeys(fields), **suggested, "grip": "cups", "object": named[1]}


def _finding(number: int, chance: int) -> dict[str, Any]:
    if (chance + number) % 3:
        return {
            "number": number,
            "holds": True,
            "confidence": chance / 100,
            "problem": None,
            "correction": None,
        }
    return {
        "number": number,
        "holds": False,
        "confidence": 0.5,
        "problem": "it cannot be seen",
        "correction": "it is seen well",
    }


def _prompt(request: Request) -> str:
    told = re.search(r'^Prompt: (".*")$', said(request), re.MULTILINE)
    assert told is not None
    return str(json.loads(told[1]))
