"""A study: which pictures people are shown, what they are asked, and in which order.

A study is a folder that needs nothing beside it: `study.json`, bare copies of the pictures named by
their pixels, `raters.json` and `votes.jsonl`. Once made, its manifest never changes.

Modes: `rating` (one picture, 1 to 5 on each question), `pairwise` (which of two pictures of one
prompt, ties allowed), `verify` (one picture, yes or no to fidelity and to alignment).
"""

import re
import shutil
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.store.disk import writing
from hoi_assets.store.images import DIGEST, ImageStore

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["rating", "pairwise", "verify"]
Side = Literal["a", "b"]
Answer = int | str

STUDY_FILE = "study.json"
IMAGES = "images"
RATINGS = "ratings"
MAX_PROMPT_CHARACTERS = 2000
# A repeat is shown only after this many other items, so that it is judged and not remembered.
REPEAT_GAP = 8

SCORES = (1, 2, 3, 4, 5)
CHOICES = ("a", "tie", "b")
LABELS = (0, 1)
ANSWERS: dict[Mode, tuple[Answer, ...]] = {
    "rating": SCORES,
    "pairwise": CHOICES,
    "verify": LABELS,
}
FIDELITY, ALIGNMENT = "fidelity", "alignment"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Record):
    """What is asked of an item; `low` and `high` name the ends of the scale."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    text: str
    low: str = ""
    high: str = ""


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
        Question(key=ALIGNMENT, text="Does the picture show what the sentence says?"),
    ),
}


class Shown(_Record):
    """One picture of an item and the methods that made exactly these pixels."""

    image: str
    methods: tuple[str, ...]


class Item(_Record):
    """What one question is asked about: one picture, or two as sides a and b."""

    item: str
    prompt_id: str
    prompt: str
    scenario: str | None
    category: str | None
    pictures: tuple[Shown, ...]
    suite: str | None = None


class EqualPair(_Record):
    """Two methods that made the same pixels: a tie that nobody needs to look at."""

    prompt_id: str
    scenario: str | None
    category: str | None
    method_a: str
    method_b: str
    suite: str | None = None


EQUAL_PAIRS: dict[str, Any] = dict.fromkeys(EqualPair.model_fields, pl.String)


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
class Picture:
    """One picture offered to a study.

    Args:
        method: what made it; hidden from the raters.
        image: an image id of the store given to `make_study`, or a file.
        prompt_id: what intervals are resampled by; None takes the prompt's own digest.
        suite: of the scorecard that the votes belong to; None: of none.
    """

    prompt: str
    method: str
    image: str | Path
    prompt_id: str | None = None
    scenario: str | None = None
    category: str | None = None
    suite: str | None = None


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


@dataclass(frozen=True)
class _Taken:
    """A picture that was read, with the digest of its pixels."""

    offer: Picture
    prompt_id: str
    pixels: str


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


def make_study(
    folder: Path,
    mode: Mode,
    pictures: Iterable[Picture],
    *,
    images: ImageStore | None = None,
    seed: int = 0,
    questions: Sequence[Question] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    prompts: int | None = None,
    repeat_share: float = 0.1,
) -> Study:
    """Make a study in `folder`, or find the same one there. A folder is whole or absent.

    Pictures of equal pixels for one prompt are shown once and count for all their methods.

    Args:
        images: where image ids are looked up.
        questions: None takes `QUESTIONS` of the mode. `verify` always asks those.
        pairs: pairwise only: the methods set against each other; None: all of them.
        prompts: how many prompts to take, chosen by hash; None: all.
        repeat_share: share of items shown twice, to see whether raters agree with themselves.

    Raises:
        HoiError: nothing usable was given, two pictures of one prompt and method in pairwise mode,
            or another study is in `folder`.
    """
    if mode not in get_args(Mode):
        raise HoiError(f"{mode!r} is no mode of a study", f"use {', '.join(get_args(Mode))}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY_FILE).exists():
        raise HoiError(f"{folder} holds other things", "name a folder of the study's own")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with writing(folder):
        (partial / "tmp").mkdir(parents=True)
        try:
            kept = ImageStore(partial / IMAGES, partial / "tmp")
            taken, left_out = _take(pictures, images, kept)
            taken = _sample(taken, prompts, seed)
            items, equal = _pair(taken, pairs) if mode == "pairwise" else (_single(taken), ())
            if not items:
                raise HoiError(
                    f"no {mode} study can be made of these pictures" + _first_reasons(left_out),
                    "give pictures of at least two methods that differ"
                    if mode == "pairwise"
                    else "give at least one readable picture with its prompt",
                )
            study = Study(
                mode=mode,
                seed=seed,
                repeat_share=repeat_share,
                questions=tuple(questions or QUESTIONS[mode])
                if mode != "verify"
                else QUESTIONS[mode],
                items=items,
                equal=equal,
                left_out=left_out,
            )
            if (folder / STUDY_FILE).exists():
                return _same(folder, study)
            kept.flush()
            (partial / "tmp").rmdir()
            (partial / STUDY_FILE).write_text(study.model_dump_json(indent=1), encoding="utf-8")
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return study


def read_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises:
        HoiError: there is none, or its manifest is damaged.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise HoiError(f"no study at {folder}", "make one first, or name one that is there")
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


def equal_pairs(study: Study) -> pl.DataFrame:
    """Ties that were not shown because both methods made the same pixels.

    Returns:
        Table of EQUAL_PAIRS.
    """
    return pl.DataFrame([pair.model_dump() for pair in study.equal], schema=EQUAL_PAIRS)


def _on_left(study: Study, rater: str, item: Item, repeat: bool) -> Side:
    if len(item.pictures) == 1:
        return "a"
    reverse = bool(seed_of("side", study.seed, rater, item.item) % 2) != repeat
    return "b" if reverse else "a"


def _take(
    offers: Iterable[Picture], images: ImageStore | None, kept: ImageStore
) -> tuple[list[_Taken], tuple[LeftOut, ...]]:
    """Copy the pictures that are usable; name the others."""
    taken, left_out = [], []
    for number, offer in enumerate(offers, start=1):
        problem = _problem(offer)
        if problem is None:
            try:
                opened = _open(offer.image, images)
            except HoiError as error:
                problem = error.what
            else:
                prompt_id = offer.prompt_id or digest(offer.prompt)[:16]
                taken.append(_Taken(offer, prompt_id, kept.put(opened)))
        if problem is not None:
            left_out.append(LeftOut(number=number, reason=problem))
    return taken, tuple(left_out)


def _problem(offer: Picture) -> str | None:
    if not offer.prompt.strip():
        return "the prompt is empty"
    if len(offer.prompt) > MAX_PROMPT_CHARACTERS:
        return f"the prompt has {len(offer.prompt)} characters, more than {MAX_PROMPT_CHARACTERS}"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in offer.prompt):
        return "the prompt holds control characters"
    if not offer.method:
        return "the method has no name"
    return None


def _open(image: str | Path, images: ImageStore | None) -> "Image.Image":
    from PIL import Image

    from hoi_assets.pictures import BROKEN, as_rgb

    if images is not None and isinstance(image, str) and DIGEST.fullmatch(image):
        return images.open(image)
    try:
        with Image.open(image) as file:
            return as_rgb(file)
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise HoiError(f"{image} is not a readable picture: {error}", "replace it") from error


def _sample(taken: list[_Taken], prompts: int | None, seed: int) -> list[_Taken]:
    """Pictures of `prompts` prompts, chosen by hash so that the choice leans on no order."""
    known = {one.prompt_id for one in taken}
    chosen = sorted(known, key=lambda prompt_id: seed_of("prompt", seed, prompt_id))[:prompts]
    return [one for one in taken if one.prompt_id in set(chosen)]


def _single(taken: list[_Taken]) -> tuple[Item, ...]:
    methods: dict[tuple[str, str, str], list[_Taken]] = {}
    for one in taken:
        methods.setdefault((one.prompt_id, one.offer.prompt, one.pixels), []).append(one)
    return tuple(_item(group[0], [_shown(group)]) for group in methods.values())


def _pair(
    taken: list[_Taken], pairs: Sequence[tuple[str, str]] | None
) -> tuple[tuple[Item, ...], tuple[EqualPair, ...]]:
    groups: dict[tuple[str, str, str], tuple[list[_Taken], list[_Taken]]] = {}
    equal = []
    for first, second in _opponents(taken, pairs):
        if first.pixels == second.pixels:
            equal.append(
                EqualPair(
                    prompt_id=first.prompt_id,
                    scenario=first.offer.scenario,
                    category=first.offer.category,
                    method_a=first.offer.method,
                    method_b=second.offer.method,
                    suite=first.offer.suite,
                )
            )
            continue
        # Sides by pixels, so that the same two pictures are one item whoever made them.
        a, b = sorted((first, second), key=lambda one: one.pixels)
        sides = groups.setdefault((a.prompt_id, a.pixels, b.pixels), ([], []))
        sides[0].append(a)
        sides[1].append(b)
    items = tuple(_item(a[0], [_shown(a), _shown(b)]) for a, b in groups.values())
    return items, tuple(equal)


def _opponents(
    taken: list[_Taken], pairs: Sequence[tuple[str, str]] | None
) -> Iterator[tuple[_Taken, _Taken]]:
    by_prompt: dict[str, dict[str, _Taken]] = {}
    for one in taken:
        own = by_prompt.setdefault(one.prompt_id, {})
        other = own.setdefault(one.offer.method, one)
        if other.pixels != one.pixels or other.offer.prompt != one.offer.prompt:
            raise HoiError(
                f"prompt {one.prompt_id} has two pictures by {one.offer.method!r}",
                "give one picture of each method for a prompt, and one prompt_id to each prompt",
            )
    for own in by_prompt.values():
        for first, second in pairs if pairs is not None else combinations(sorted(own), 2):
            if first in own and second in own and first != second:
                yield own[first], own[second]


def _shown(group: list[_Taken]) -> Shown:
    methods = tuple(sorted({one.offer.method for one in group}))
    return Shown(image=group[0].pixels, methods=methods)


def _item(one: _Taken, pictures: list[Shown]) -> Item:
    name = digest([one.prompt_id, one.offer.prompt, *(shown.image for shown in pictures)])[:16]
    return Item(
        item=name,
        prompt_id=one.prompt_id,
        prompt=one.offer.prompt,
        scenario=one.offer.scenario,
        category=one.offer.category,
        pictures=tuple(pictures),
        suite=one.offer.suite,
    )


def _first_reasons(left_out: Sequence[LeftOut]) -> str:
    told = "; ".join(f"number {one.number}: {one.reason}" for one in left_out[:3])
    return f": {told}" if told else ""


def _same(folder: Path, study: Study) -> Study:
    if read_study(folder) != study:
        raise HoiError(
            f"another study is at {folder}",
            "give the new one a name of its own: a study never changes while people vote",
        )
    return study
