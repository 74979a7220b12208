"""What every step is given: the settings of a profile and the store below one home."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from hoi_assets.defs.partitions import partition_keys
from hoi_assets.publishing.stage import Keys
from hoi_assets.settings import ROOT, Settings, home_folder, load_settings
from hoi_assets.store.disk import writing
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import unknown_category


class Platform:
    """Settings and store, opened at first use.

    Args:
        profile: name or path of a YAML file; None takes `HOI_PROFILE`, else `tiny`.
        home: where outputs go; None takes `home_folder()`.
    """

    def __init__(self, profile: str | None = None, home: Path | None = None) -> None:
        self.profile = profile
        self.home = home

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.profile)

    @cached_property
    def store(self) -> Store:
        return Store(self.home or home_folder())

    @property
    def partition_keys(self) -> Keys:
        """All keys of each kind of partitions: hand-pose categories, scenarios."""
        return partition_keys(self.settings.taxonomy_folder)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The named categories and scenarios in their order, each once.

        Raises:
            HoiError: a name that neither the taxonomy nor InterActing has.
        """
        known = tuple(key for own in self.partition_keys.values() for key in own)
        for name in names:
            if name not in known:
                raise unknown_category(name, known, self.settings.taxonomy_folder)
        return tuple(key for key in known if key in names)

    def run_keys(self) -> tuple[str, ...]:
        """What the profile runs: its `run_categories` and `run_scenarios`; all where it names none.

        Raises:
            HoiError: a name nobody knows.
        """
        settings, keys = self.settings, self.partition_keys
        return self.chosen(
            [
                *(settings.run_categories or keys["hand_pose"]),
                *(settings.run_scenarios or keys["scenario"]),
            ]
        )


class PlatformResource(dg.ConfigurableResource):
    """`Platform` for Dagster's steps; both fields may be left empty."""

    profile: str | None = None
    home: str | None = None
    _platform: Platform | None = PrivateAttr(default=None)

    @property
    def platform(self) -> Platform:
        if self._platform is None:
            self._platform = Platform(self.profile, Path(self.home) if self.home else None)
        return self._platform

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def store(self) -> Store:
        return self.platform.store

    @property
    def partition_keys(self) -> Keys:
        return self.platform.partition_keys


def prepare_dagster_home(home: Path) -> Path:
    """`<home>/dagster`, holding a copy of our `dagster.yaml`; to be used as DAGSTER_HOME.

    Dagster writes its databases and logs beside that file, so that all of it stays below `home`.
    """
    folder = home / "dagster"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        config = (ROOT / "dagster.yaml").read_bytes()
        copy = folder / "dagster.yaml"
        if not copy.is_file() or copy.read_bytes() != config:
            partial = copy.with_suffix(f".{os.getpid()}.tmp")
            partial.write_bytes(config)
            partial.replace(copy)
    return folder
