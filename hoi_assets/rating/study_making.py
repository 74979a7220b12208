"""Makes a study: copies its pictures, pairs them by prompt, and writes the manifest."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.picture_files import open_picture
from hoi_assets.rating.study import (
    IMAGES,
    QUESTIONS,
    STUDY_FILE,
    EqualPair,
    Item,
    LeftOut,
    Mode,
    Question,
    Shown,
    Study,
    read_study,
)
from hoi_assets.store.disk import temporary_path, writing
from hoi_assets.store.images import DIGEST, ImageStore
from hoi_assets.store.staging import NESTED_STAGING, remove_abandoned
from hoi_assets.text import text_problem

if TYPE_CHECKING:
    from PIL import Image

MAX_PROMPT_CHARACTERS = 2000


@dataclass(frozen=True)
class StudyImage:
    """One image offered to a study.

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
class _Imported:
    """An image that was read, with the digest of its pixels."""

    offer: StudyImage
    prompt_id: str
    pixels: str


def make_study(
    folder: Path,
    mode: Mode,
    pictures: Iterable[StudyImage],
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
        pairs: pairwise only: the methods compared with each other; None: all of them.
        prompts: how many prompts to take, chosen by hash; None: all.
        repeat_share: share of items shown twice, to see whether raters agree with themselves.

    Raises:
        HoiError: nothing usable was given, two pictures of one prompt and method in pairwise mode,
            or another study is in `folder`.
    """
    if mode not in get_args(Mode):
        raise HoiError(f"{mode!r} is not a mode of a study", f"use {', '.join(get_args(Mode))}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY_FILE).exists():
        raise HoiError(f"{folder} holds other things", "name a folder of the study's own")
    staging = folder.parent / NESTED_STAGING
    partial = temporary_path(staging)
    with writing(folder):
        (partial / "tmp").mkdir(parents=True)
        remove_abandoned(staging)
        try:
            kept = ImageStore(partial / IMAGES, partial / "tmp")
            imported, left_out = _import_images(pictures, images, kept)
            imported = _sample_prompts(imported, prompts, seed)
            items, equal = (
                _pair_images(imported, pairs)
                if mode == "pairwise"
                else (_list_images(imported), ())
            )
            if not items:
                raise HoiError(
                    f"no {mode} study can be made of these pictures" + _list_reasons(left_out),
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
                return _require_same(folder, study)
            kept.flush()
            (partial / "tmp").rmdir()
            (partial / STUDY_FILE).write_text(study.model_dump_json(indent=1), encoding="utf-8")
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return study


def _import_images(
    offers: Iterable[StudyImage], images: ImageStore | None, kept: ImageStore
) -> tuple[list[_Imported], tuple[LeftOut, ...]]:
    """Copy the usable images to `kept`, and list the others with the reason."""
    imported, left_out = [], []
    for number, offer in enumerate(offers, start=1):
        problem = _find_problem(offer)
        if problem is None:
            try:
                opened = _read_image(offer.image, images)
            except HoiError as error:
                problem = error.what
            else:
                prompt_id = offer.prompt_id or digest(offer.prompt)[:16]
                imported.append(_Imported(offer, prompt_id, kept.put(opened)))
        if problem is not None:
            left_out.append(LeftOut(number=number, reason=problem))
    return imported, tuple(left_out)


def _find_problem(offer: StudyImage) -> str | None:
    if not offer.prompt.strip():
        return "the prompt is empty"
    if len(offer.prompt) > MAX_PROMPT_CHARACTERS:
        return f"the prompt has {len(offer.prompt)} characters, more than {MAX_PROMPT_CHARACTERS}"
    problem = text_problem(offer.prompt)
    if problem is not None:
        return f"the prompt is no plain text: {problem}"
    if not offer.method:
        return "the method has no name"
    return None


def _read_image(image: str | Path, images: ImageStore | None) -> "Image.Image":
    if images is not None and isinstance(image, str) and DIGEST.fullmatch(image):
        return images.open(image)
    try:
        return open_picture(Path(image))
    except ValueError as error:
        raise HoiError(f"{image} is not a readable picture: {error}", "replace it") from error


def _sample_prompts(imported: list[_Imported], prompts: int | None, seed: int) -> list[_Imported]:
    """Images of `prompts` prompts, chosen by hash, so that the choice depends on no order."""
    known = {one.prompt_id for one in imported}
    chosen = sorted(known, key=lambda prompt_id: seed_of("prompt", seed, prompt_id))[:prompts]
    return [one for one in imported if one.prompt_id in set(chosen)]


def _list_images(imported: list[_Imported]) -> tuple[Item, ...]:
    methods: dict[tuple[str, str, str], list[_Imported]] = {}
    for one in imported:
        methods.setdefault((one.prompt_id, one.offer.prompt, one.pixels), []).append(one)
    return tuple(_make_item(group[0], [_merge_methods(group)]) for group in methods.values())


def _pair_images(
    imported: list[_Imported], pairs: Sequence[tuple[str, str]] | None
) -> tuple[tuple[Item, ...], tuple[EqualPair, ...]]:
    groups: dict[tuple[str, str, str], tuple[list[_Imported], list[_Imported]]] = {}
    equal = []
    for first, second in _opponents(imported, pairs):
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
    items = tuple(
        _make_item(a[0], [_merge_methods(a), _merge_methods(b)]) for a, b in groups.values()
    )
    return items, tuple(equal)


def _opponents(
    imported: list[_Imported], pairs: Sequence[tuple[str, str]] | None
) -> Iterator[tuple[_Imported, _Imported]]:
    by_prompt: dict[str, dict[str, _Imported]] = {}
    for one in imported:
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


def _merge_methods(group: list[_Imported]) -> Shown:
    methods = tuple(sorted({one.offer.method for one in group}))
    return Shown(image=group[0].pixels, methods=methods)


def _make_item(one: _Imported, pictures: list[Shown]) -> Item:
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


def _list_reasons(left_out: Sequence[LeftOut]) -> str:
    reasons = "; ".join(f"number {one.number}: {one.reason}" for one in left_out[:3])
    return f": {reasons}" if reasons else ""


def _require_same(folder: Path, study: Study) -> Study:
    if read_study(folder) != study:
        raise HoiError(
            f"another study is at {folder}",
            "give the new one a name of its own: a study never changes while people vote",
        )
    return study
