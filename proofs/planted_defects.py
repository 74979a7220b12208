"""Defects of every stage, each of which its gate must stop, in each way of launching.

A small home is made by `hoi run` on the stored weights. Then, one after the other, an asset's
output is replaced by a spoiled copy of the version in force (`doctored.py`, the only door to most
defects), or the asset is computed from spoiled inputs (`spoiled_inputs.py`). A trial survives if
the step fails, an expectation names the defect, nothing is published and every version in force
stays so.
"""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from hoi_assets.defs.project import Project
from hoi_assets.publishing import evidence
from hoi_assets.store.versions import place_name
from hoi_assets_tests.pipeline_fixture import CATEGORIES, SCENARIO, hoi, write_profile
from proofs.campaign import Campaign, Trial
from proofs.defects import DEFECTS
from proofs.doctored import doctored_project, plant
from proofs.launching import by_daemon_and_clicks, by_run
from proofs.running import execute
from proofs.spoiled_inputs import INPUTS, try_input
from proofs.verdict import escaped
from proofs.versions import in_force, restore

# As the profile `tiny` has them; the small models of tests pass anything.
GATES = {
    "min_pixel_std": 4.0,
    "max_duplicate_share": 0.2,
    "min_accepted_share": 0.001,
    "max_accepted_share": 0.99,
    "min_accepted_per_category": 1,
    "min_dataset_rows": 2,
    "min_auc_alignment": 0.6,
    "max_cut_share": 0.5,
}
# With fewer trials neither the daemon nor the webserver is started.
ALL_WAYS_FROM = 40


def run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    home, profile = folder / "home", write_profile(folder)
    hoi(home, profile, "run", *CATEGORIES, SCENARIO)
    yield from run_in(home, write_profile(folder, gates=GATES), seed, trials)


def run_in(home: Path, profile: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    """The trials on a home with everything published."""
    warnings.simplefilter("ignore")
    project = doctored_project(profile, home)
    names, inputs = sorted(DEFECTS), list(INPUTS)
    if trials is not None:
        names = random.Random(seed).sample(names, min(trials, len(names)))
        inputs = inputs[: max(0, trials - len(names))]
    with dg.DagsterInstance.ephemeral() as instance:
        yield healthy(project, instance)
        for name in names:
            yield by_job(project, instance, name)
        for one in inputs:
            yield try_input(one, home, profile, GATES, instance)
    if trials is None or trials >= ALL_WAYS_FROM:
        yield from by_run(project, profile)
        yield from by_daemon_and_clicks(project, profile)


def partition_of(project: Project, asset: str) -> str | None:
    """The partition of this home in which the asset is spoiled."""
    keys = project.graph[asset].partition_keys
    return next(key for key in keys if key is None or key in (*CATEGORIES, SCENARIO))


def healthy(project: Project, instance: dg.DagsterInstance) -> Trial:
    """Without a defect every copy passes, or the trials after it would prove nothing."""
    store = project.platform.store
    plant(store.home, {})
    before, faults = in_force(store), []
    for one in store.all_current():
        if not execute(project, instance, one.asset, one.partition).success:
            attempt = evidence.latest(store, one.asset, one.partition)
            faults.append(f"{one.name}: {attempt.reason if attempt else 'no attempt'}")
    if in_force(store) != before:
        faults.append("a true copy became another version")
    return Trial("nothing planted", "; ".join(faults))


def by_job(project: Project, instance: dg.DagsterInstance, name: str) -> Trial:
    """One defect, in the asset's job."""
    asset, store = DEFECTS[name].asset, project.platform.store
    place, before = place_name(asset, partition_of(project, asset)), in_force(store)
    plant(store.home, {place: name})
    success = execute(project, instance, asset, partition_of(project, asset)).success
    fault = escaped(store, place, DEFECTS[name], before, success)
    restore(store, before)
    return Trial(f"job, {name}", fault)


CAMPAIGN = Campaign(
    "planted_defects",
    "a version that fails its gate is never in force, whoever launched it",
    run,
)
