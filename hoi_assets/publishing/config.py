"""What can be set in the launchpad when an asset is materialised."""

import dagster as dg
from pydantic import Field

from hoi_assets.settings import Settings


class PublishConfig(dg.Config):
    """For every asset."""

    force: bool = Field(
        default=False, description="Compute although the inputs are unchanged and published."
    )

    def apply(self, settings: Settings) -> Settings:
        """The settings with what this config overrides; the result is part of the inputs."""
        return settings
