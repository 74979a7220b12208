"""Places of the graph, (asset, partition), and the folders of a home that belong to them."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from hoi_assets.errors import HoiError

UNPARTITIONED = "_"  # folder of an asset without partitions
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def place_name(asset: str, partition: str | None) -> str:
    """`asset` or `asset/partition`: how inputs and messages name a place in the graph.

    Example:
        >>> place_name("detailed_prompts", "hook")
        'detailed_prompts/hook'
    """
    return asset if partition is None else f"{asset}/{partition}"


def check_names(asset: str, partition: str | None) -> None:
    """Refuse names that cannot name a folder.

    Raises:
        HoiError: such a name.

    Example:
        >>> check_names("detailed_prompts", "hook")
    """
    for what, name in (("asset", asset), ("partition", partition)):
        if name is None:
            continue
        if not NAME.fullmatch(name) or (what == "partition" and name == UNPARTITIONED):
            raise HoiError(
                f"{what} name {name!r} cannot name a folder",
                "use letters, digits, '_', '-' and '.', beginning with a letter or digit",
            )


def is_orphan(partition: str | None, known: Collection[str] | None) -> bool:
    """Whether a partition is none of those that are known; None: all are.

    >>> is_orphan("hook", ["tripod"]), is_orphan(None, ["tripod"])
    (True, False)
    """
    return known is not None and partition is not None and partition not in known


def folder_name(partition: str | None) -> str:
    """Name of the folder of a partition.

    Example:
        >>> folder_name("hook"), folder_name(None)
        ('hook', '_')
    """
    return partition or UNPARTITIONED


def place_folder(home: Path, asset: str, partition: str | None) -> Path:
    """Folder of a place's versions, pointer and history. Raises as `check_names`."""
    check_names(asset, partition)
    return home / "assets" / asset / folder_name(partition)


def version_folder(home: Path, asset: str, partition: str | None, version: str) -> Path:
    """Folder of one version's files. Raises as `check_names`."""
    return place_folder(home, asset, partition) / "versions" / version


def manifest_file(version: Path) -> Path:
    """Where the manifest of a version is.

    Args:
        version: the version's folder.
    """
    return version.parent.parent / "manifests" / f"{version.name}.json"


def quarantine_folder(home: Path, asset: str, partition: str | None) -> Path:
    """Folder of what a place's gate rejected."""
    return home / "quarantine" / asset / folder_name(partition)


def places(home: Path) -> Iterator[tuple[str, str | None]]:
    """Every place with a folder in the home, sorted by the folder's name."""
    for folder in sorted((home / "assets").glob("*/*")):
        if not (NAME.fullmatch(folder.parent.name) and NAME.fullmatch(folder.name)):
            continue  # not a place of ours
        yield folder.parent.name, None if folder.name == UNPARTITIONED else folder.name
