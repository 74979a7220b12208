"""What is stored for partitions that are gone, e.g. of a category removed from the taxonomy.

It stays readable and is marked, but nothing downstream reads it; `prune(known=…)` removes it.
"""

from collections.abc import Collection

from hoi_assets.store.places import is_orphan
from hoi_assets.store.versions import Store


def orphans(store: Store, known: Collection[str]) -> list[tuple[str, str]]:
    """Places (asset, partition) with a version in force whose partition is not `known`, sorted.

    Example:
        >>> orphans(store, known=["tripod", "worn"])  # doctest: +SKIP
        [('detailed_prompts', 'hook')]
    """
    with store.moment():
        return [
            (asset, partition)
            for asset, partition in store.places()
            if partition is not None
            and is_orphan(partition, known)
            and store.current(asset, partition) is not None
        ]
