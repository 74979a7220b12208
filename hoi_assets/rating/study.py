"""A study: which pictures raters are shown, what they are asked, and in which order.

A study is a folder that needs nothing beside it: `study.json`, bare copies of the pictures named by
their pixels, `raters.json` and `votes.jsonl`. Once made, its manifest never changes.

Modes: `rating` (one picture, 1 to 5 on each question), `pairwise` (which of two pictures of one
prompt, ties allowed), `verify` (one picture, yes or no to fidelity and to alignment, and of a
picture without fidelity the worst fault: of which kind, and where).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.store.images import ImageStore

Mode = Literal["rating", "pairwise", "verify"]
Side = Literal["a", "b"]
Answer = int | str

STUDY_FILE = "study.json"
IMAGES = "images"
RATINGS = "ratings"
# A repeat is shown only after this many other items, so that it is judged and not remembered.
REPEAT_GAP = 8

OTHER_FAULT = "other"
SCORES = (1, 2, 3, 4, 5)
CHOICES = ("a", "tie", "b")
LABELS = (0, 1)
ANSWERS: dict[Mode, tuple[Answer, ...]] = {
    "rating": SCORES,
    "pairwise": CHOICES,
    "verify": LABELS,
}
FIDELITY, ALIGNMENT, FAULT = "fidelity", "alignment", "fault"
# The kinds that the verifier's base learns from twins, as a rater names them, and any other.
FAULTS = {
    "extra_finger": "too many fingers",
    "missing_finger": "too few fingers",
    "fused_fingers": "fused fingers",
    "bent_joint": "joint bent wrongly",
    "wrong_length": "wrong length",
    "doubled_thumb": "two thumbs",
    "second_palm": "second palm",
    "broken_wrist": "broken wrist",
    "melted_hand": "melted hand",
    "penetrating": "hand inside the object",
    "fused_object": "hand and object fused",
    "floating": "object not held",
    OTHER_FAULT: "something else",
}
# A fault's answer: its kind, and where it is, per mille of the picture's width and height.
_FAULT_ANSWER = re.compile(r"([a-z_]+)@(\d{1,3}),(\d{1,3})", re.ASCII)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Record):
    """A question about an item; `low` and `high` label the ends of its scale.

    Args:
        faults: not empty: the answer is one of these kinds, and the place that the rater clicked.
        after: asked only of an item for which the rater gave that answer to that question.
    """

    key: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    text: str
    low: str = ""
    high: str = ""
    faults: tuple[str, ...] = ()
    after: tuple[str, Answer] | None = None

    def allows(self, answer: Any, mode: Mode) -> bool:
        """Whether a vote may say so. True is no score of 1."""
        if self.faults:
            found = read_fault(answer)
            return found is not None and found.kind in self.faults
        return any(type(answer) is type(one) and answer == one for one in ANSWERS[mode])

    def answers(self, mode: Mode) -> str:
        """The answers that it allows, for a message."""
        if self.faults:
            return f"KIND@X,Y with X, Y per mille and KIND of: {', '.join(self.faults)}"
        return f"one of {', '.join(str(one) for one in ANSWERS[mode])}"


@dataclass(frozen=True)
class Fault:
    """A fault that a rater named, and where: shares of the picture's width and height."""

    kind: str
    x: float
    y: float


def read_fault(answer: Any) -> Fault | None:
    """The fault that an answer names; None where it is no such answer."""
    found = _FAULT_ANSWER.fullmatch(answer) if isinstance(answer, str) else None
    if found is None:
        return None
    return Fault(found[1], int(found[2]) / 1000, int(found[3]) / 1000)


QUESTIONS: dict[Mode, tuple[Question, ...]] = {
    "rating": (
        Question(
            key=ALIGNMENT,
            text="How well does the picture show what the sentence says?",
            low="not at all",
            high="everything",
        ),
        Question(
            key=FIDELITY,
            text="How real do the hands and things in it look?",
            low="broken",
            high="real",
        ),
    ),
    "pairwise": (Question(key="better", text="Which picture fits the sentence better?"),),
    "verify": (
        Question(key=FIDELITY, text="Are the hands and things whole, and do they touch as shown?"),
        Question(
            key=FAULT,
            text="Click on the worst fault in the picture, then name it.",
            faults=tuple(FAULTS),
            after=(FIDELITY, 0),
        ),
        Question(key=ALIGNMENT, text="Does the picture show what the sentence says?"),
    ),
}


class Shown(_Record):
    """One picture of an item and the methods that made exactly these pixels."""

    image: str
    methods: tuple[str, ...]


class Item(_Record):
    """What raters judge: one picture, or two as sides a and b."""

    item: str
    prompt_id: str
    prompt: str
    scenario: str | None
    category: str | None
    pictures: tuple[Shown, ...]
    suite: str | None = None


class EqualPair(_Record):
    """Two methods that made the same pixels: a tie that no rater is shown."""

    prompt_id: str
    scenario: str | None
    category: str | None
    method_a: str
    method_b: str
    suite: str | None = None


class LeftOut(_Record):
    """A picture that could not be taken into the study; `number` counts those given, from 1."""

    number: int
    reason: str


class Study(_Record):
    """The manifest. `repeat_share`: share of items shown a second time, sides reversed."""

    mode: Mode
    seed: int
    repeat_share: float = Field(ge=0, le=0.5)
    questions: tuple[Question, ...] = Field(min_length=1)
    items: tuple[Item, ...] = Field(min_length=1)
    equal: tuple[EqualPair, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Showing:
    """One place in a rater's order: an item, for the first or the second time.

    Args:
        place: from 1.
        on_left: the side shown on the left; always "a" where there is one picture.
    """

    place: int
    item: Item
    repeat: bool
    on_left: Side


def study_folder(home: Path, name: str) -> Path:
    """Where the study of that name is, or would be.

    Raises:
        HoiError: the name is more than letters, digits, `-`, `_` and `.`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise HoiError(
            f"{name!r} is not a name for a study", "use letters, digits, '-', '_' and '.'"
        )
    return home / RATINGS / name


def study_folders(home: Path) -> list[Path]:
    """The folders of all studies below `home`, by name."""
    return sorted(path.parent for path in (home / RATINGS).glob(f"*/{STUDY_FILE}"))


def read_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises:
        HoiError: there is none, or its manifest is damaged.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise HoiError(f"no study at {folder}", "make one first, or name an existing one")
    try:
        return Study.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise HoiError(
            f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
            "restore that file; a study's manifest is not edited by hand",
        ) from error


def study_images(folder: Path) -> ImageStore:
    """The pictures of the study in `folder`, by pixel digest."""
    return ImageStore(folder / IMAGES, folder)


def showings(study: Study, rater: str) -> tuple[Showing, ...]:
    """A rater's order: all items shuffled, with repeats in between. The same at every call."""
    order = sorted(study.items, key=lambda item: seed_of("order", study.seed, rater, item.item))
    shown: list[tuple[Item, bool]] = []
    repeated: set[str] = set()
    for count, item in enumerate(order, start=1):
        shown.append((item, False))
        due = int(count * study.repeat_share) > int((count - 1) * study.repeat_share)
        past = [one for one in order[: max(0, count - REPEAT_GAP)] if one.item not in repeated]
        if due and past:
            again = min(past, key=lambda one: seed_of("repeat", study.seed, rater, one.item))
            repeated.add(again.item)
            shown.append((again, True))
    return tuple(
        Showing(place, item, repeat, _on_left(study, rater, item, repeat))
        for place, (item, repeat) in enumerate(shown, start=1)
    )


def _on_left(study: Study, rater: str, item: Item, repeat: bool) -> Side:
    if len(item.pictures) == 1:
        return "a"
    reverse = bool(seed_of("side", study.seed, rater, item.item) % 2) != repeat
    return "b" if reverse else "a"
