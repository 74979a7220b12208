"""The taxonomy of hand poses: schema and reader of `data/taxonomy/`.

One file per category in `categories/<key>.yaml`, `general_prompts.yaml` for prompts without a hand,
and `grasps.yaml` for the grasps the tiny world solves. Adding a category is adding a file.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.text import text_problem
from hoi_assets.yaml_file import Location, YamlError, YamlFile

GENERAL = "general"
KEY_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,63}")  # partitions and folders are named after keys
ID_LENGTH = 16
SUFFIXES = (".yaml", ".yml")


class TaxonomyError(YamlError):
    """Every mistake found in a taxonomy folder, each as `file:line: field: problem`."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__(
            mistakes,
            "correct the lines named; a category's fields are those of `Category` in "
            "hoi_assets/taxonomy.py",
            "the taxonomy",
        )


def _one_line(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if "\n" in text.strip():
        raise ValueError("must be one line")
    problem = text_problem(text.strip())
    if problem is not None:
        raise ValueError(problem)
    return text.strip()


def _one_word(text: str) -> str:
    if not KEY_PATTERN.fullmatch(text):
        raise ValueError(
            f"{text[:80]!r} must be up to 64 lower-case letters, digits and underscores, a letter "
            "first (no commas, no spaces)"
        )
    return text


Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, AfterValidator(_one_word)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BasePrompt(_Entry):
    """One prompt of the taxonomy: its text and the object it is about."""

    text: Line
    object: Line
    _category: str = PrivateAttr("")

    @property
    def category(self) -> str:
        """Key of the category it belongs to; `general` for a prompt without a hand."""
        return self._category

    @cached_property
    def prompt_id(self) -> str:
        """16 hex digits; equal as long as category and text are."""
        return digest({"category": self._category, "text": self.text})[:ID_LENGTH]

    def _within(self, category: str) -> "BasePrompt":
        self._category = category
        return self


Prompts = Annotated[tuple[BasePrompt, ...], Field(min_length=1)]


class Category(_Entry):
    """One hand pose, in the terms of the GRASP taxonomy (Feix et al. 2016).

    Attributes:
        identifier: the rare token DreamBooth ties to this category.
        grip_phrase: what the hand does, third person ("wraps around"); `{object}` marks where the
            object stands, else it follows the phrase.
        telling_words: beginnings of words that mark this grip; another category's, with none of
            its own beside, mark a prompt as off-category.
        objects: trained on. held_out_objects: only in evaluation prompts, as unseen combinations.
    """

    key: Word
    name: Line
    grasp_taxonomy: Line
    definition: Line
    contact_surface: Line
    thumb: Line
    identifier: Word
    grip_phrase: Line
    telling_words: tuple[Line, ...] = ()
    hands: Literal[1, 2]
    objects: Annotated[tuple[Line, ...], Field(min_length=1)]
    held_out_objects: tuple[Line, ...] = ()
    base_prompts: Prompts
    evaluation_prompts: Prompts

    @field_validator("base_prompts", "evaluation_prompts", mode="after")
    @classmethod
    def _know_category(
        cls, prompts: tuple[BasePrompt, ...], info: ValidationInfo
    ) -> tuple[BasePrompt, ...]:
        return tuple(prompt._within(info.data.get("key", "")) for prompt in prompts)

    @cached_property
    def digest(self) -> str:
        """Hash of everything the file says."""
        return digest(self.model_dump(mode="json"))

    def seen(self, prompt: BasePrompt) -> bool:
        """Whether the prompt's object is one this category is trained on."""
        return prompt.object in self.objects


class _GeneralPrompts(_Entry):
    general_prompts: Prompts

    @field_validator("general_prompts", mode="after")
    @classmethod
    def _know_category(cls, prompts: tuple[BasePrompt, ...]) -> tuple[BasePrompt, ...]:
        return tuple(prompt._within(GENERAL) for prompt in prompts)


@dataclass(frozen=True)
class Taxonomy:
    """All categories by key (in order of file name), general prompts, and grasps by category.

    A category without a grasp cannot be rendered; it takes the user's own instance images.
    """

    folder: Path
    categories: Mapping[str, Category]
    general_prompts: tuple[BasePrompt, ...]

    @cached_property
    def grasps(self) -> Mapping[str, Any]:
        """`GraspSpec` per category key, for those `grasps.yaml` describes; read on first use."""
        path = self.folder / "grasps.yaml"
        if not path.exists() and not path.is_symlink():
            return {}
        from hoi_assets.grasp_specs import read_grasps

        return read_grasps(path)

    @cached_property
    def digest(self) -> str:
        """Hash of all categories and general prompts."""
        return digest(
            {
                "categories": {key: value.digest for key, value in self.categories.items()},
                "general_prompts": [p.model_dump(mode="json") for p in self.general_prompts],
            }
        )

    def category(self, key: str) -> Category:
        """The category named `key`.

        Raises:
            HoiError: there is none; the message lists those there are.
        """
        if key not in self.categories:
            raise unknown_category(key, self.categories, self.folder)
        return self.categories[key]

    def prompt_rows(self) -> list[dict[str, Any]]:
        """One row per prompt: base_prompt_id, category (None for general prompts), kind (base |
        evaluation | general), text, object, seen (the object is trained on; None for general).
        """
        rows = []
        for category in self.categories.values():
            for kind, prompts in (
                ("base", category.base_prompts),
                ("evaluation", category.evaluation_prompts),
            ):
                rows += [_row(p, kind, category.seen(p)) for p in prompts]
        return rows + [_row(p, GENERAL, None) for p in self.general_prompts]


def _row(prompt: BasePrompt, kind: str, seen: bool | None) -> dict[str, Any]:
    return {
        "base_prompt_id": prompt.prompt_id,
        "category": None if kind == GENERAL else prompt.category,
        "kind": kind,
        "text": prompt.text,
        "object": prompt.object,
        "seen": seen,
    }


def unknown_category(key: str, known: Sequence[str] | Mapping[str, Any], folder: Path) -> HoiError:
    """The error for an unknown category."""
    return HoiError(
        f"no category {key!r} in {folder}",
        f"name one of: {', '.join(sorted(known))}; or add {folder / 'categories' / key}.yaml",
    )


def category_keys(folder: Path) -> tuple[str, ...]:
    """Keys of the categories, from file names alone: what partitions need, in under 1 ms.

    Raises:
        TaxonomyError: no category file, or a file name that cannot be a key.
    """
    files = _category_files(folder)
    mistakes = _bad_names(files)
    if mistakes:
        raise TaxonomyError(mistakes)
    return tuple(path.stem for path in files)


def _bad_names(files: Sequence[Path]) -> list[str]:
    mistakes = [_bad_name(path) for path in files if not KEY_PATTERN.fullmatch(path.stem)]
    mistakes += [_bad_suffix(path) for path in files if path.suffix not in SUFFIXES]
    names = {path.stem: path.name for path in reversed(files)}
    return mistakes + [
        f"{path}:1: key: {names[path.stem]} beside it has the same key"
        for path in files
        if names[path.stem] != path.name
    ]


def _bad_name(path: Path) -> str:
    return (
        f"{path}:1: key: the file name {path.stem[:80]!r} must be up to 64 lower-case letters, "
        "digits and underscores, a letter first"
    )


def _bad_suffix(path: Path) -> str:
    return f"{path}:1: key: ends in {path.suffix}: rename it to {path.stem}.yaml"


def _ignored_twins(folder: Path) -> Iterator[str]:
    """Files that look like those that are read, and are not."""
    for name in ("general_prompts", "grasps"):
        for path in sorted(folder.glob(f"{name}.*")):
            if path.suffix.lower() in SUFFIXES and path.name != f"{name}.yaml":
                yield f"{path}:1: file: is not read: its name must be {name}.yaml"


def _category_files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in (folder / "categories").glob("*")
        if path.suffix.lower() in SUFFIXES and path.name[0] != "."
    )
    if not files:
        raise TaxonomyError([f"{folder / 'categories'}:1: key: holds no <key>.yaml"])
    return files


def load_taxonomy(folder: Path) -> Taxonomy:
    """Read and validate a taxonomy folder.

    Raises:
        TaxonomyError: naming file, line and field of every mistake found.
    """
    files = _category_files(folder)
    mistakes = [*_bad_names(files), *_ignored_twins(folder)]
    read: list[tuple[YamlFile, Category]] = []
    for path in files:
        file = YamlFile.read(path, mistakes)
        category = file.parse(Category, mistakes) if file else None
        if file and category:
            mistakes += [file.mistake(*found) for found in _category_mistakes(path, category)]
            read.append((file, category))
    file = YamlFile.read(folder / "general_prompts.yaml", mistakes)
    general = file.parse(_GeneralPrompts, mistakes) if file else None
    general_prompts = general.general_prompts if general else ()
    mistakes += _repeated_prompts(read, file, general_prompts)
    for field in ("identifier", "grip_phrase"):
        mistakes += _shared_values(read, field)
    if mistakes:
        raise TaxonomyError(mistakes)
    return Taxonomy(folder, {category.key: category for _, category in read}, general_prompts)


def normalise(text: str) -> str:
    """Text without case, punctuation, extra spaces and invisible characters: equal for texts that
    differ in those only, or in how Unicode composes their letters.

    >>> normalise("A  red ball!") == normalise("a red ball")
    True
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return " ".join(re.findall(r"[\w']+", text.casefold()))


def _category_mistakes(path: Path, category: Category) -> Iterator[tuple[Location, str]]:
    """Where the fields of one category disagree with each other, or with the file's name."""
    if category.key != path.stem:
        yield ("key",), f"{category.key!r} must equal the file name, {path.stem!r}"
    if category.key == GENERAL:
        yield ("key",), f"{GENERAL!r} is reserved for prompts without a hand"
    if category.grip_phrase.count("{") != category.grip_phrase.count("{object}"):
        yield ("grip_phrase",), "only {object} may stand in braces"
    listed: dict[str, str] = {}
    for field in ("objects", "held_out_objects"):
        for place, thing in enumerate(getattr(category, field)):
            if normalise(thing) in listed:
                yield (field, place), f"{thing!r} is listed twice, in {listed[normalise(thing)]}"
            listed.setdefault(normalise(thing), field)
    for place, prompt in enumerate(category.base_prompts):
        if prompt.object not in category.objects:
            yield (
                ("base_prompts", place, "object"),
                f"{prompt.object!r} is not one of objects: {', '.join(category.objects)}",
            )
    known = (*category.objects, *category.held_out_objects)
    for place, prompt in enumerate(category.evaluation_prompts):
        if prompt.object not in known:
            yield (
                ("evaluation_prompts", place, "object"),
                f"{prompt.object!r} is not one of objects or held_out_objects: {', '.join(known)}",
            )
    asked = {prompt.object for prompt in category.evaluation_prompts}
    if not asked & set(category.objects):
        yield ("evaluation_prompts",), "none is about one of objects (a seen combination)"
    if category.held_out_objects and not asked & set(category.held_out_objects):
        yield ("evaluation_prompts",), "none is about one of held_out_objects (an unseen one)"


def _repeated_prompts(
    read: Sequence[tuple[YamlFile, Category]],
    general_file: YamlFile | None,
    general: Sequence[BasePrompt],
) -> Iterator[str]:
    """Texts used twice anywhere; differing only in case, spaces or punctuation counts as equal."""
    places: list[tuple[YamlFile, Location, BasePrompt]] = []
    for field in ("base_prompts", "evaluation_prompts"):
        for file, category in read:
            prompts = enumerate(getattr(category, field))
            places += [(file, (field, place, "text"), prompt) for place, prompt in prompts]
    if general_file:
        places += [
            (general_file, ("general_prompts", place, "text"), prompt)
            for place, prompt in enumerate(general)
        ]
    first: dict[str, str] = {}
    for file, location, prompt in places:
        text = normalise(prompt.text)
        if text in first:
            yield file.mistake(location, f"{prompt.text!r} repeats {first[text]}")
        else:
            first[text] = f"{location[0]} at {file.path.name}:{file.line(location)}"


def _shared_values(read: Sequence[tuple[YamlFile, Category]], field: str) -> Iterator[str]:
    """Values of `field` that two categories share."""
    first: dict[str, str] = {}
    for file, category in read:
        value = normalise(getattr(category, field))
        if value in first:
            yield file.mistake((field,), f"{value!r} is already that of {first[value]}")
        first.setdefault(value, category.key)
