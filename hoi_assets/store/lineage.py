"""The lineage of a version: its ancestors, from the log of publications."""

from collections.abc import Iterator
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.store.versions import Published, Store, place_name


def lineage(store: Store, asset: str, partition: str | None, version: str) -> list[Published]:
    """The version and all it was made from, nearest first, each once.

    Follows `inputs` and `parents` upward: every pair {"asset" or "asset/partition": version}, at
    any depth, that names a publication. A version published more than once stands with its latest
    inputs, save that an ancestor is taken as it was when its child was published. Pruned ancestors
    are listed too (their path is gone).

    Raises:
        HoiError: no such version was published.

    Example:
        >>> [p.name for p in lineage(store, "category_loras", "hook", version)]  # doctest: +SKIP
        ['category_loras/hook', 'instance_images/hook', 'base_prompt_taxonomy']
    """
    start = [p for p in store.history(asset, partition) if p.version == version]
    if not start:
        raise HoiError(
            f"{place_name(asset, partition)} has no version {version!r}",
            'list its versions with `hoi sql "select * from publications"`',
        )
    found = {(start[-1].name, version): start[-1]}
    pending = [start[-1]]
    while pending:
        child = pending.pop(0)
        for name, parent_version in _named_versions([child.inputs, child.parents]):
            if (name, parent_version) in found:
                continue
            parent = _as_of(store, name, parent_version, child.published_at)
            if parent is not None:
                found[name, parent_version] = parent
                pending.append(parent)
    return list(found.values())


def _named_versions(inputs: Any) -> Iterator[tuple[str, str]]:
    if isinstance(inputs, dict):
        for name, value in sorted(inputs.items()):
            if isinstance(value, str):
                yield name, value
            else:
                yield from _named_versions(value)
    elif isinstance(inputs, list):
        for value in inputs:
            yield from _named_versions(value)


def _as_of(store: Store, name: str, version: str, when: str) -> Published | None:
    """The publication of that version in force at `when`; None where `name` is not a place."""
    asset, _, partition = name.partition("/")
    try:
        history = store.history(asset, partition or None)
    except HoiError:
        return None
    matching = [published for published in history if published.version == version]
    earlier = [published for published in matching if published.published_at <= when]
    chosen = earlier or matching
    return chosen[-1] if chosen else None
