"""The DreamBooth reference images: from the pool of rendered scenes, or a user's own folder.

A user's folder is `<folder>/<category>/`, with pictures in the formats of `picture_files`. The
caption of `a.png` is the text of `a.txt` beside it, one line of UTF-8. Where that is absent or
blank, the category's class prompt is trained on instead.

Rows depend on names and bytes of the files alone, not on where the folder is.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file_cached
from hoi_assets.picture_files import FORMAT_NAMES, open_picture, picture_size
from hoi_assets.settings import InstanceImages, resolve_path, restore_remedy
from hoi_assets.store.images import ImageStore
from hoi_assets.store.tables import Column, Table
from hoi_assets.text import file_name, printable_name, text_problem

CAPTION_SUFFIX = ".txt"
MAX_CAPTION_BYTES = 4096

INSTANCE_IMAGE_ROWS = Table(
    "rows",
    "one reference image of the category, or a file that was rejected",
    (
        Column("pixels", pl.String, "digest of the pixels; null where rejected", nullable=True),
        Column("caption", pl.String, "null where there is none", nullable=True),
        Column("category", pl.String, "hand-pose category"),
        Column("object", pl.String, "the object; null where unknown", nullable=True),
        Column("source", pl.String, "scene of the pool, or file name"),
        Column("width", pl.Int64, "null where unreadable", "px", nullable=True),
        Column("height", pl.Int64, "null where unreadable", "px", nullable=True),
        Column("status", pl.String, "accepted or rejected"),
        Column("reason", pl.String, "why it was rejected", nullable=True),
    ),
    key=("source",),
)
INSTANCE_ROUNDS = Table(
    "rounds",
    "one accepted reference image and its round; the table is absent where no round asked for any",
    (
        Column("source", pl.String, "scene of the pool, or file name"),
        Column("round", pl.Int64, "round that asked for it; 0 where none did"),
    ),
    key=("source",),
    optional=True,
)
# What a scene of the pool shows, as slices are named by it.
SLICE = ("object", "skin_tone", "view", "side")


@dataclass(frozen=True)
class InstanceImage:
    """A row of `INSTANCE_IMAGE_ROWS`."""

    pixels: str | None
    caption: str | None
    category: str
    object: str | None
    source: str
    width: int | None
    height: int | None
    status: str
    reason: str | None


@dataclass(frozen=True)
class MoreImages:
    """How many more images a round asks for, and which slices it wants to see (`SLICE`)."""

    round: int
    count: int
    slices: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Entry:
    """One thing in a folder; `problem` says why it is no file."""

    name: str
    path: Path
    problem: str | None

    @property
    def shown(self) -> str:
        return printable_name(self.name)

    @property
    def is_caption(self) -> bool:
        return self.name.lower().endswith(CAPTION_SUFFIX)

    @property
    def stem(self) -> str:
        """What a picture and its caption share, however its letters are composed."""
        return unicodedata.normalize("NFC", PurePosixPath(self.name).stem)


class _Unusable(Exception):
    """Why a file is no reference picture, with its size where that is known."""

    def __init__(self, reason: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(reason)
        self.width, self.height = width, height


def instance_images_digest(category: str, settings: InstanceImages) -> str:
    """Digest of the files the category's instance images come from.

    Raises:
        HoiError: the folder or pool is missing or empty.
    """
    if settings.folder is None:
        return digest_file_cached(_pool_folder(settings) / "scenes.parquet")
    return digest([[entry.name, _content(entry)] for entry in _entries(category, settings)])


def read_instance_images(
    category: str,
    settings: InstanceImages,
    images: ImageStore,
    more: Sequence[MoreImages] = (),
) -> pl.DataFrame:
    """Put the category's reference images into the image store.

    Args:
        more: what rounds ask for beyond `per_category`: scenes of the pool that are nearest to
            their slices, or the next files of the folder.

    Returns:
        Table `INSTANCE_IMAGE_ROWS`. All that lies in a folder and is neither an accepted picture,
        its caption nor hidden is a rejected row.

    Raises:
        HoiError: the folder or pool is missing, or holds nothing for the category.
    """
    if settings.folder is None:
        rows = _from_pool(category, settings, images, more)
    else:
        most = settings.per_category + sum(one.count for one in more)
        rows = _from_folder(category, settings, images, most)
    return INSTANCE_IMAGE_ROWS.frame(asdict(row) for row in rows)


def rounds_of_images(
    rows: pl.DataFrame, settings: InstanceImages, more: Sequence[MoreImages]
) -> pl.DataFrame:
    """Table `INSTANCE_ROUNDS` of the rows that `read_instance_images` made: the first
    `per_category` accepted ones are of round 0, the next of the rounds in order."""
    sources = rows.filter(pl.col("status") == "accepted")["source"].to_list()
    numbers = [0] * settings.per_category + [one.round for one in more for _ in range(one.count)]
    found = zip(sources, numbers, strict=False)
    return INSTANCE_ROUNDS.frame({"source": source, "round": number} for source, number in found)


def _pool_folder(settings: InstanceImages) -> Path:
    folder = resolve_path(settings.pool)
    if not (folder / "scenes.parquet").is_file():
        raise HoiError(
            f"no pool of rendered scenes at {folder}",
            f"{restore_remedy(settings.pool, 'world')}; or name your own pictures under "
            "instance_images.folder in the profile",
        )
    return folder


def _from_pool(
    category: str, settings: InstanceImages, images: ImageStore, more: Sequence[MoreImages]
) -> Iterator[InstanceImage]:
    from hoi_assets.store.scene_pool import open_image, read_pool

    folder = _pool_folder(settings)
    scenes = read_pool(folder, "instance").filter(pl.col("category") == category).sort("scene_id")
    if scenes.is_empty():
        raise HoiError(
            f"the pool {folder} holds no instance images of {category!r}",
            f"render them with `make world`, or put your own pictures of {category!r} into a "
            "folder and name it under instance_images.folder in the profile",
        )
    rows = scenes.to_dicts()
    chosen, left = rows[: settings.per_category], rows[settings.per_category :]
    for one in more:
        ranked = [(-_likeness(scene, one.slices), place) for place, scene in enumerate(left)]
        left = [left[place] for _, place in sorted(ranked)]
        chosen += left[: one.count]
        left = left[one.count :]
    for row in chosen:
        picture = open_image(folder, row)
        yield InstanceImage(
            pixels=images.put(picture),
            caption=row["caption"],
            category=category,
            object=row["object"],
            source=row["scene_id"],
            width=picture.width,
            height=picture.height,
            status="accepted",
            reason=None,
        )


def _likeness(scene: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> int:
    """The most words that a scene shares with a slice."""
    return max((sum(scene[name] == one[name] for name in SLICE) for one in slices), default=0)


def _entries(category: str, settings: InstanceImages) -> list[_Entry]:
    """All that lies in the category's folder, hidden files aside, in order of name."""
    folder = resolve_path(settings.folder or "") / category
    if not folder.is_dir():
        raise HoiError(
            f"instance folder {folder} does not exist",
            f"make it and put reference pictures of {category!r} into it, or unset "
            "instance_images.folder in the profile",
        )
    try:
        found = sorted((file_name(path), path) for path in folder.iterdir())
    except OSError as error:
        raise HoiError(
            f"instance folder {folder} cannot be read: {error.strerror}", "allow to read it"
        ) from error
    entries = [_Entry(name, path, _no_file(path)) for name, path in found if name[0] != "."]
    if all(entry.is_caption for entry in entries):
        raise HoiError(
            f"instance folder {folder} holds no pictures",
            f"put {settings.per_category} pictures ({FORMAT_NAMES}) of {category!r} into it",
        )
    return entries


def _no_file(path: Path) -> str | None:
    """Why there is no file at `path`; None where there is one."""
    try:
        if path.is_file():
            return None
        if path.is_dir():
            return "a folder: only files directly in the category's folder are read"
        if path.is_symlink():
            return "a link that leads nowhere, or to itself"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "no regular file"


def _content(entry: _Entry) -> str:
    """The digest of a file, or why there is none."""
    if entry.problem is not None:
        return entry.problem
    try:
        return digest_file_cached(entry.path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _from_folder(
    category: str, settings: InstanceImages, images: ImageStore, most: int
) -> Iterator[InstanceImage]:
    entries = _entries(category, settings)
    captions: dict[str, _Entry] = {}
    for entry in entries:
        if entry.is_caption:
            captions.setdefault(entry.stem, entry)
    stems = {entry.stem for entry in entries if not entry.is_caption}
    accepted = 0
    for entry in entries:
        try:
            if entry.problem is not None:
                raise _Unusable(entry.problem)
            if entry.is_caption:
                _check_owner(entry, captions[entry.stem], stems)
                continue
            row = _read_picture(
                entry,
                captions.get(entry.stem),
                category,
                settings,
                images,
                most=most,
                surplus=accepted == most,
            )
        except _Unusable as problem:
            row = _rejected(entry, category, problem)
        accepted += row.status == "accepted"
        yield row


def _check_owner(caption: _Entry, first: _Entry, stems: set[str]) -> None:
    if first is not caption:
        raise _Unusable(f"a second caption beside {first.shown}")
    if caption.stem not in stems:
        raise _Unusable("a caption without a picture: a.txt is the caption of a.png")


def _read_picture(
    entry: _Entry,
    caption: _Entry | None,
    category: str,
    settings: InstanceImages,
    images: ImageStore,
    most: int,
    surplus: bool,
) -> InstanceImage:
    """Raises `_Unusable` with the reason."""
    try:
        width, height = picture_size(entry.path)
    except ValueError as error:
        raise _Unusable(f"unreadable picture: {error}") from error
    size = f"{width}x{height} px"
    # The header is enough to refuse an image that would fill the memory.
    if max(width, height) > settings.max_side_px:
        raise _Unusable(f"{size} is over {settings.max_side_px} px a side", width, height)
    if min(width, height) < settings.min_side_px:
        raise _Unusable(f"{size} is under {settings.min_side_px} px a side", width, height)
    if surplus:
        taken = f"{most} (instance_images.per_category)"
        raise _Unusable(f"surplus: the first {taken} are taken, by name", width, height)
    try:
        text = _read_caption(caption)
    except ValueError as error:
        raise _Unusable(str(error), width, height) from error
    try:
        picture = open_picture(entry.path, settings.max_side_px)
    except ValueError as error:
        raise _Unusable(f"unreadable picture: {error}") from error
    return InstanceImage(
        pixels=images.put(picture),
        caption=text,
        category=category,
        object=None,
        source=entry.shown,
        width=picture.width,
        height=picture.height,
        status="accepted",
        reason=None,
    )


def _read_caption(caption: _Entry | None) -> str | None:
    """The text beside a picture; None where it is absent or blank.

    Raises:
        ValueError: it is not one line of plain UTF-8 text.
    """
    if caption is None:
        return None
    try:
        if caption.problem is not None:
            raise ValueError(caption.problem)
        with caption.path.open("rb") as file:
            data = file.read(MAX_CAPTION_BYTES + 1)
        if len(data) > MAX_CAPTION_BYTES:
            raise ValueError(f"is longer than {MAX_CAPTION_BYTES} bytes")
        text = data.decode("utf-8-sig").strip()
        if len(text.splitlines()) > 1:
            raise ValueError("holds more than one line: make it one")
        problem = text_problem(text)
        if problem is not None:
            raise ValueError(problem)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"caption {caption.shown}: is not UTF-8 (byte {error.start + 1}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise ValueError(f"caption {caption.shown}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"caption {caption.shown}: {error}") from error
    return text or None


def _rejected(entry: _Entry, category: str, problem: _Unusable) -> InstanceImage:
    return InstanceImage(
        pixels=None,
        caption=None,
        category=category,
        object=None,
        source=entry.shown,
        width=problem.width,
        height=problem.height,
        status="rejected",
        reason=f"{entry.shown}: {problem}",
    )
