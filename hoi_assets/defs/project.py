"""The pipelines under a profile: assets bound to it, jobs, partitions."""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from hoi_assets.defs.executors import executor, op_tags
from hoi_assets.defs.jobs import PIPELINE_JOBS
from hoi_assets.defs.resources import Platform, PlatformResource
from hoi_assets.errors import HoiError
from hoi_assets.publishing.asset import PLATFORM, bind, is_published_asset
from hoi_assets.publishing.graph import Graph
from hoi_assets.taxonomy import unknown_category


@dataclass(frozen=True)
class Project:
    """The pipelines under one profile and home.

    Attributes:
        assets: published assets, bound to the profile, in order of dependency.
        plain_assets: other assets, as they are; the warm loop and `hoi stale` leave them alone.
        pipeline_jobs: in the order in which the warm loop runs them.
    """

    platform: Platform
    graph: Graph
    assets: tuple[dg.AssetsDefinition, ...]
    pipeline_jobs: tuple[Any, ...]
    plain_assets: tuple[dg.AssetsDefinition, ...] = ()

    @cached_property
    def pipelines(self) -> dg.Definitions:
        """Assets, pipeline jobs and resources: what the warm loop runs."""
        platform = self.platform
        home = None if platform.home is None else str(platform.home)
        return dg.Definitions(
            assets=[*self.assets, *self.plain_assets],
            jobs=self.pipeline_jobs,
            resources={PLATFORM: PlatformResource(profile=platform.profile, home=home)},
            executor=executor(),
        )

    def assets_of(self, job: Any) -> tuple[str, ...]:
        """Keys of a pipeline job's assets, in order of dependency."""
        keys = {key.to_user_string() for key in job.selection.resolve(self.assets)}
        return tuple(stage.name for stage in self.graph.stages if stage.name in keys)

    def partitions_of(self, job: Any) -> dg.PartitionsDefinition | None:
        """The partitions of a pipeline job; None where it has none."""
        for name in self.assets_of(job):
            if self.graph[name].partitions_def is not None:
                return self.graph[name].partitions_def
        return None

    @cached_property
    def partition_keys(self) -> tuple[tuple[str, ...], ...]:
        """Keys of each kind of partitions, in the order of the jobs."""
        found = dict.fromkeys(
            tuple(partitions_def.get_partition_keys())
            for partitions_def in map(self.partitions_of, self.pipeline_jobs)
            if partitions_def is not None
        )
        return tuple(found)

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Every hand-pose category and scenario."""
        return tuple(key for keys in self.partition_keys for key in keys)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The named categories and scenarios in their order, each once.

        Raises:
            HoiError: a name that is neither.
        """
        for name in names:
            if name not in self.all_keys:
                folder = self.platform.settings.taxonomy_folder
                raise unknown_category(name, self.all_keys, folder)
        return tuple(key for key in self.all_keys if key in names)

    def run_keys(self) -> tuple[str, ...]:
        """What the profile runs: its `run_categories` and `run_scenarios`; all where it names none.

        Raises:
            HoiError: an unknown name.
        """
        settings = self.platform.settings
        named = self.chosen([*settings.run_categories, *settings.run_scenarios])
        return tuple(
            key
            for keys in self.partition_keys
            for key in keys
            if key in named or not set(keys) & set(named)
        )

    def keys_in_use(self) -> tuple[str, ...]:
        """What the profile runs, and every partition with anything published."""
        store, named = self.platform.store, self.run_keys()
        published = {
            key
            for stage in self.graph.stages
            if stage.partitions_def is not None
            for key in store.partitions(stage.name)
        }
        return tuple(key for key in self.all_keys if key in named or key in published)


def load_project(
    profile: str | None = None,
    home: Path | str | None = None,
    assets: Iterable[dg.AssetsDefinition] | None = None,
    pipeline_jobs: Sequence[Any] = PIPELINE_JOBS,
) -> Project:
    """The pipelines bound to a profile.

    Args:
        profile: name or path of a YAML file; None takes `HOI_PROFILE`, else `tiny`.
        home: where outputs go; None takes `HOI_HOME`, else `data/out`.
        assets: those below `hoi_assets.defs` where not given.

    Raises:
        HoiError: a broken profile, or assets that do not form a graph.
    """
    platform = Platform(profile, home)
    found = assets_below("hoi_assets.defs") if assets is None else list(assets)
    if not found:
        raise HoiError("there are no assets", "define one with published_asset")
    plain = tuple(asset for asset in found if not is_published_asset(asset))
    published = (asset for asset in found if is_published_asset(asset))
    settings = platform.settings
    graph, bound = bind(published, settings, op_tags(settings))
    return Project(platform, graph, tuple(bound), tuple(pipeline_jobs), plain)


def assets_below(package: str) -> list[dg.AssetsDefinition]:
    """Every asset at the top of a module below the package, each once."""
    found: dict[int, dg.AssetsDefinition] = {}
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, dg.AssetsDefinition):
                found[id(value)] = value
    return list(found.values())


def published_below(package: str) -> list[dg.AssetsDefinition]:
    """Those of `assets_below` that `published_asset` made."""
    return [asset for asset in assets_below(package) if is_published_asset(asset)]
