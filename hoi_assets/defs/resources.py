"""What every step is given: a profile's settings, and the store below one home."""

from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from hoi_assets.settings import Settings, home_location, is_url, load_settings
from hoi_assets.store.versions import Store


class Platform:
    """Settings and store, opened at first use.

    Args:
        profile: name or path of a YAML file; None takes `HOI_PROFILE`, else `tiny`.
        home: where outputs go, a folder or a URL; None takes `home_location()`.
    """

    def __init__(self, profile: str | None = None, home: Path | str | None = None) -> None:
        self.profile = profile
        self.home = home

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.profile)

    @cached_property
    def store(self) -> Store:
        settings = self.settings
        return Store(self.home or home_location(), settings.profile, settings.picture_format)


class PlatformResource(dg.ConfigurableResource):
    """`Platform` as a Dagster resource; both fields may be left empty."""

    profile: str | None = Field(
        default=None, description="Name or path of a profile; else HOI_PROFILE, else tiny."
    )
    home: str | None = Field(
        default=None,
        description="Folder or s3:// URL of outputs; else HOI_HOME, else data/out.",
    )
    _platform: Platform | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Give the model cache the profile's budget, and batches their place."""
        from hoi_assets.defs.executors import use_batch_map
        from hoi_assets.engines.model_cache import configure

        configure(self.settings.model_budget_bytes)
        use_batch_map(self.settings)

    @property
    def platform(self) -> Platform:
        if self._platform is None:
            named = self.home or None
            home = named if named is None or is_url(named) else Path(named)
            self._platform = Platform(self.profile, home)
        return self._platform

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def store(self) -> Store:
        return self.platform.store
