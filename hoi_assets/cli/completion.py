"""Shell completion: names are read from files, without Dagster; a broken file completes nothing."""

from collections.abc import Iterable

from hoi_assets.errors import HoiError


def profiles(incomplete: str) -> list[str]:
    """Names of the profiles."""
    from hoi_assets.settings import PROFILES

    return _matching((path.stem for path in sorted(PROFILES.glob("*.yaml"))), incomplete)


def partitions(incomplete: str) -> list[str]:
    """Hand-pose categories of the profile's taxonomy, and scenarios."""
    from hoi_assets.cli.project import partition_names

    try:
        return _matching((key for own in partition_names() for key in own), incomplete)
    except HoiError:
        return []


def categories(incomplete: str) -> list[str]:
    """Hand-pose categories of the profile's taxonomy."""
    from hoi_assets.cli.project import partition_names

    try:
        return _matching(partition_names()[0], incomplete)
    except HoiError:
        return []


def assets(incomplete: str) -> list[str]:
    """Names of the assets, as the file of locked code versions has them."""
    from hoi_assets.cli.project import locked_assets

    return _matching(locked_assets(), incomplete)


def studies(incomplete: str) -> list[str]:
    """Names of the studies in the home."""
    from hoi_assets.rating.study import study_folders
    from hoi_assets.settings import home_folder

    return _matching((folder.name for folder in study_folders(home_folder())), incomplete)


def models(incomplete: str) -> list[str]:
    """Names under `models` of the profile."""
    from hoi_assets.settings import load_settings

    try:
        named = load_settings().models
    except HoiError:
        return []
    return _matching((name for name, ref in named if ref is not None), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
