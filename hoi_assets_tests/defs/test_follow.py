"""What follows a changed category: one wave, with the report last and once."""

from itertools import count
from pathlib import Path

import dagster as dg
import pytest
from dagster import AssetKey

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.project import load_project

pytestmark = pytest.mark.slow

CATEGORIES, SCENARIO = ("hook", "worn"), "functional"
TICKS = 12
versions = count()


class Wave:
    """Ticks of the sensor over the real assets; what it asks for runs until a later tick.

    Attributes:
        asked: per tick, the names of the assets asked for.
        blocked: assets whose gate rejects what they make.
    """

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        project = load_project("tiny", home)
        self.instance = instance
        self.definitions = all_definitions(project)
        self.graph = project.graph
        self.job = self.definitions.get_repository_def().get_implicit_global_asset_job_def()
        self.asked: list[set[str]] = []
        self.running: list[tuple[str, str | None, dg.DagsterRun]] = []
        self.cursor = None
        self.blocked: set[str] = set()

    def publish(self, asset: str, partition: str | None = None) -> None:
        """A materialisation with content of its own."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset, partition=partition, tags={"dagster/data_version": f"v{next(versions)}"}
            )
        )

    def keys(self, asset: str) -> tuple[str | None, ...]:
        own = self.graph[asset].partition_keys
        return tuple(key for key in own if key in (None, *CATEGORIES, SCENARIO))

    def tick(self, finish: bool) -> None:
        """One tick; first, what ran is done where `finish` says so."""
        while finish and self.running:
            asset, partition, run = self.running.pop()
            if asset not in self.blocked:
                self.publish(asset, partition)
            self.instance.report_run_canceled(run)  # any end: it is in progress no longer
        found = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursor
        )
        self.cursor = found.cursor
        self.asked.append(set())
        for name in (stage.name for stage in self.graph.stages):
            key = AssetKey(name)
            for partition in self.keys(name):
                if found.get_num_requested(key) and (
                    partition is None or partition in found.get_requested_partitions(key)
                ):
                    self.asked[-1].add(name)
                    self.running.append((name, partition, self._started(key, partition)))

    def _started(self, key: AssetKey, partition: str | None) -> dg.DagsterRun:
        return self.instance.create_run_for_job(
            self.job,
            asset_selection={key},
            tags={} if partition is None else {"dagster/partition": partition},
            status=dg.DagsterRunStatus.STARTED,
        )


TAIL = [
    {"hoi_dataset", "finetuned_model"},
    {"hoi_evaluation_images"},
    {"hoi_scorecards"},
    {"evaluation_report"},
]


@pytest.mark.parametrize(
    ("changed", "blocked", "waves"),
    [
        ("verified_pairs", set(), TAIL),
        ("refined_images", set(), [{"interacting_scorecards"}, {"evaluation_report"}]),
        ("human_ratings", set(), [{"hoi_scorecards", "interacting_scorecards"}, TAIL[-1]]),
        # What is blocked is waited for by nobody.
        ("verified_pairs", {"hoi_dataset", "finetuned_model"}, [TAIL[0], TAIL[-1]]),
        ("verified_pairs", {"hoi_scorecards"}, TAIL),
    ],
)
def test_report_follows_once_after_all_that_it_shows(
    changed: str, blocked: set[str], waves: list[set[str]], tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        wave = Wave(tmp_path, instance)
        for stage in wave.graph.stages:
            for key in wave.keys(stage.name):
                wave.publish(stage.name, key)
        wave.tick(finish=False)
        assert wave.asked == [set()]
        wave.blocked = blocked
        for key in wave.keys(changed):
            wave.publish(changed, key)
        for number in range(TICKS):
            wave.tick(finish=number % 2 == 1)
        assert [asked for asked in wave.asked if asked] == waves
        assert not wave.running
