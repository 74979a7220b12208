"""What is declared about an asset beside Dagster's own keywords."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from hoi_assets.publishing.config import PublishConfig
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import Expectation
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Table
from hoi_assets.store.versions import Staging

StageFunction = Callable[..., Result]
ExternalInputs = Callable[[StageContext], Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One asset with write-audit-publish around it; `published_asset` makes it.

    Attributes:
        deps: required and optional dependencies, in order of declaration.
        optional: those of `deps` that may be unpublished.
        deps_when: further dependencies that hold only under some settings.
        asset_keywords: keywords for `dg.asset`, unchanged.
        See `published_asset` for the others.
    """

    name: str
    function: StageFunction
    deps: tuple[str, ...]
    optional: tuple[str, ...]
    deps_when: Mapping[str, Callable[[Settings], bool]]
    partitions_def: dg.PartitionsDefinition | None
    code_version: str
    suite: tuple[Expectation, ...]
    tables: tuple[Table, ...]
    settings: tuple[str, ...]
    models: tuple[str, ...]
    external_inputs: ExternalInputs | None
    config: type[PublishConfig]
    asset_keywords: Mapping[str, Any]

    def __call__(self, context: StageContext, staging: Staging) -> Result:
        return self.function(context, staging)

    @property
    def required(self) -> tuple[str, ...]:
        """Dependencies that must be published."""
        return tuple(name for name in self.deps if name not in self.optional)

    @property
    def partition_keys(self) -> tuple[str | None, ...]:
        """Its partition keys; one None where it has no partitions."""
        if self.partitions_def is None:
            return (None,)
        return tuple(self.partitions_def.get_partition_keys())

    def bound(self, settings: Settings) -> "Stage":
        """The stage under these settings, with its conditional dependencies settled."""
        active = [name for name, holds in self.deps_when.items() if holds(settings)]
        return replace(self, deps=(*self.deps, *active), deps_when={})
