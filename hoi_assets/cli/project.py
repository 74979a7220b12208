"""The commands' only access to `hoi_assets.defs`, `definitions` and `publishing`.

Imports nothing heavy at the top: Dagster takes a second.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from hoi_assets.defs.project import Project as Pipelines
    from hoi_assets.defs.warm_loop import Report
    from hoi_assets.publishing.staleness import Status
    from hoi_assets.settings import Settings
    from hoi_assets.store.remote_home import RemoteHome
    from hoi_assets.store.versions import Store

Only = Literal["all", "stale", "failed", "missing"]  # = warm_loop.Only
FRESH = "fresh"


@dataclass(frozen=True)
class AssetStatus:
    """State of one asset in one partition.

    Attributes:
        partition: None where the asset has none.
        reasons: why it is not fresh.
        failed_rows: rows of the version in force that failed and can be tried again.
        version: the version in force; None where nothing is published.
    """

    asset: str
    partition: str | None
    state: str
    reasons: tuple[str, ...]
    failed_rows: int
    version: str | None

    @property
    def fresh(self) -> bool:
        return self.state == FRESH


@dataclass(frozen=True)
class RunResult:
    """Attributes:
    table: what was done, as text.
    blocked: partitions (or jobs without partitions) that a failed step or gate blocks.
    """

    table: str
    blocked: tuple[str, ...]


@dataclass(frozen=True)
class Backfill:
    """Attributes:
    ids: of Dagster's backfills.
    daemon_alive: whether a daemon that runs them reported lately.
    """

    ids: tuple[str, ...]
    daemon_alive: bool


class Project:
    """Both pipelines over the profile and home of the environment, loaded at first use."""

    @cached_property
    def _pipelines(self) -> "Pipelines":
        from hoi_assets.defs.project import load_project

        return load_project()

    def default_partitions(self) -> tuple[str, ...]:
        """What a run without names makes: the profile's categories and scenarios."""
        return self._pipelines.run_keys()

    def chosen(self, names: Sequence[str], all_partitions: bool) -> tuple[str, ...]:
        """The named categories and scenarios in their order; all; or the default ones.

        Raises:
            HoiError: a name that is neither a category nor a scenario.
        """
        if all_partitions:
            return self._pipelines.all_keys
        return self._pipelines.chosen(names) or self.default_partitions()

    def by_kind(self, partitions: Sequence[str]) -> tuple[list[str], list[str]]:
        """The categories among `partitions`, and the scenarios."""
        categories, scenarios = (
            [key for key in keys if key in partitions] for keys in partition_names()
        )
        return categories, scenarios

    def statuses(self) -> list[AssetStatus]:
        """State of every asset in every partition, in the order in which they run."""
        return [
            AssetStatus(
                asset=one.asset,
                partition=one.partition,
                state=one.state,
                reasons=one.reasons,
                failed_rows=one.failed_rows,
                version=None if one.published is None else one.published.version,
            )
            for one in self._statuses()
        ]

    def asked_for(self, partitions: Sequence[str], only: Only) -> tuple[str, ...]:
        """Those of `partitions` with an asset in a state that `only` selects."""
        from hoi_assets.defs.warm_loop import matches

        if only == "all":
            return tuple(partitions)
        wanted = {one.partition for one in self._statuses() if matches(one, only)}
        return tuple(key for key in partitions if key in wanted)

    def run(self, partitions: Sequence[str], only: Only, force: bool) -> RunResult:
        """Run the pipelines over `partitions` in this process."""
        from hoi_assets.defs.warm_loop import run_pipelines

        with _instance() as instance:
            report = run_pipelines(self._pipelines, instance, partitions, only=only, force=force)
        return _result(report)

    def run_round(self, categories: Sequence[str]) -> RunResult:
        """One more round of hand poses in this process; without names, of the profile's.

        Raises:
            HoiError: a name that is no hand pose.
        """
        from hoi_assets.defs.rounds import default_categories, run_round

        pipelines = self._pipelines
        chosen = pipelines.chosen(categories) or default_categories(pipelines)
        with _instance() as instance:
            report = run_round(pipelines, instance, chosen)
        return _result(report)

    def backfill(self, partitions: Sequence[str]) -> Backfill:
        """Request one run per partition from Dagster's daemon."""
        from hoi_assets.defs.backfills import launch_backfills
        from hoi_assets.defs.runs import daemon_alive

        with _instance() as instance:
            ids = launch_backfills(self._pipelines, instance, partitions, {})
            return Backfill(tuple(ids), daemon_alive(instance))

    def _statuses(self) -> list["Status"]:
        from hoi_assets.publishing.staleness import status

        platform = self._pipelines.platform
        return status(self._pipelines.graph, platform.settings, platform.store)


def partition_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All categories of the profile's taxonomy, and all scenarios; without Dagster.

    Raises:
        HoiError: the profile or the taxonomy's folder cannot be read.
    """
    from hoi_assets.grammar.plans import SCENARIOS
    from hoi_assets.settings import load_settings
    from hoi_assets.taxonomy import category_keys

    return category_keys(load_settings().taxonomy_folder), SCENARIOS


def chosen_by_kind(
    names: Sequence[str], settings: "Settings"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The named categories and scenarios; without names those that the profile runs. No Dagster.

    Raises:
        HoiError: a name that is neither.
    """
    from hoi_assets.taxonomy import unknown_category

    kinds = partition_names()
    known = [key for keys in kinds for key in keys]
    for name in (*names, *settings.run_categories, *settings.run_scenarios):
        if name not in known:
            raise unknown_category(name, known, settings.taxonomy_folder)
    wanted = names or (*settings.run_categories, *settings.run_scenarios)
    categories, scenarios = (
        tuple(key for key in keys if key in wanted or not (names or set(keys) & set(wanted)))
        for keys in kinds
    )
    return categories, scenarios


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns; the first row is the head."""
    from hoi_assets.text import aligned

    return aligned(rows)


def open_store() -> "Store":
    """The store of the environment's home.

    Raises:
        HoiError: the home belongs to another profile than the environment's, or cannot be a home.
    """
    from hoi_assets.settings import home_location, load_settings
    from hoi_assets.store.versions import Store

    settings = load_settings()
    return Store(home_location(), settings.profile, settings.picture_format)


def open_store_of_any_profile() -> "Store":
    """As `open_store`, for what reads stored data alone: where no profile is named, a home of any
    is opened.

    Raises:
        HoiError: as `open_store`.
    """
    from hoi_assets.settings import home_folder, home_location, load_settings
    from hoi_assets.store.home import profile_of
    from hoi_assets.store.versions import Store

    home = home_location()
    # Of a home in a bucket, opening the store is what reads whose it is.
    opened = Store(home) if isinstance(home, str) else None
    of_another = profile_of(home_folder()) not in (None, load_settings().profile)
    if of_another and not os.environ.get("HOI_PROFILE"):
        return opened or Store(home)
    return open_store()


def open_remote() -> "RemoteHome | None":
    """The environment's home where it is in a bucket; None where it is a folder.

    Raises:
        HoiError: the URL of no bucket.
    """
    from hoi_assets.settings import home_location
    from hoi_assets.store.remote_home import RemoteHome

    home = home_location()
    return RemoteHome(home) if isinstance(home, str) else None


def known_partitions(store: "Store") -> tuple[str, ...] | None:
    """All categories and scenarios of the store's profile; None where it was opened without one."""
    return None if store.profile is None else tuple(key for own in partition_names() for key in own)


def use_dagster_home() -> Path:
    """Set DAGSTER_HOME to `<home>/dagster`, with this repository's config, unless the user did.

    Raises:
        HoiError: as `open_store`, or the home cannot be written.
    """
    from hoi_assets.defs.dagster_home import prepare_dagster_home
    from hoi_assets.settings import home_folder

    open_store().require_writable()
    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(prepare_dagster_home(home_folder()))
    return Path(os.environ["DAGSTER_HOME"])


def locked_assets() -> tuple[str, ...]:
    """Names of the assets whose code versions are locked; empty where there is no lock file."""
    from hoi_assets.publishing.code_versions import read_lock

    return tuple(read_lock())


def lock_code_versions(same_output: Sequence[str]) -> tuple[Path, int]:
    """Lock the code versions of all assets.

    Args:
        same_output: assets whose code changed without changing what they make.

    Returns:
        The lock file, and how many assets it holds.

    Raises:
        HoiError: another asset's code changed and its `code_version` did not.
    """
    from hoi_assets.defs.project import load_project
    from hoi_assets.publishing.code_versions import LOCK_FILE, write_lock

    return LOCK_FILE, len(write_lock(load_project().graph.stages, same_output))


def _result(report: "Report") -> RunResult:
    blocked = dict.fromkeys(done.partition or done.job for done in report.blocked)
    return RunResult(report.table(), tuple(blocked))


def _instance() -> AbstractContextManager["DagsterInstance"]:
    from dagster import DagsterInstance

    use_dagster_home()
    return DagsterInstance.get()
