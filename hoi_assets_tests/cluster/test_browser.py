"""A backfill on the Ray executor, started in the UI by clicks, ends green."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.engines import batch_map
from hoi_assets.store.versions import Store
from hoi_assets_tests.chromium import running_chromium
from hoi_assets_tests.cluster.conftest import BEFORE, Ready, made
from hoi_assets_tests.pipeline_fixture import CATEGORIES
from hoi_assets_tests.ui_process import running_ui

pytestmark = pytest.mark.timeout(1200)

ENDS_S = 600
STEP_MS = 90_000


@pytest.fixture
def page() -> Iterator[Any]:
    with running_chromium() as browser:
        opened = browser.new_page(viewport={"width": 1300, "height": 900})
        opened.set_default_timeout(STEP_MS)
        yield opened


def test_a_backfill_of_two_categories_on_the_ray_executor_ends_green(
    page: Any, on_ray: str, ready: Ready, tmp_path: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    home = ready.copy(tmp_path / "home")
    for category in CATEGORIES:
        made(ready.profile, home, BEFORE, category)
    current = batch_map.in_use()
    if isinstance(current, RayBatchMap):
        current.close()  # its workers take all CPUs
    profile = tmp_path / "small.yaml"
    text = ready.profile.read_text(encoding="utf-8")
    profile.write_text(f"{text}ray: {{max_workers: 1}}\n", encoding="utf-8")
    jobs = {job.submission_id for job in JobSubmissionClient(on_ray).list_jobs()}
    with running_ui(home, profile) as url:
        page.goto(f"{url}/assets/candidate_images")
        page.get_by_role("button", name="Materialize").first.click()
        # What it is made from was materialised outside of this instance.
        page.get_by_role("button", name="Confirm").click()
        page.get_by_text("Select a partition or create one").first.click()
        for category in CATEGORIES:
            page.locator("label").filter(has_text=category).first.click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Launch backfill").click()
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            runs = _ended(instance, len(CATEGORIES))
        assert {run.tags["dagster/partition"] for run in runs} == {*CATEGORIES}
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        page.goto(f"{url}/runs/?view=backfills")
        page.get_by_text("Succeeded").first.wait_for()
        page.screenshot(path=tmp_path / "backfills.png")
    store = Store(home)
    assert all(store.current("candidate_images", category) for category in CATEGORIES)
    assert store.require("candidate_images", "worn").version == ready.version
    found = [one for one in JobSubmissionClient(on_ray).list_jobs() if one.submission_id]
    new = [one for one in found if one.submission_id not in jobs]
    assert [(one.metadata or {})["dagster/op"] for one in new] == 2 * ["candidate_images"]


def _ended(instance: dg.DagsterInstance, number: int) -> list[dg.DagsterRun]:
    """The runs of the backfill, once so many have ended."""
    deadline = time.monotonic() + ENDS_S
    while time.monotonic() < deadline:
        runs = [run for run in instance.get_runs() if "dagster/backfill" in run.tags]
        if len(runs) == number and all(run.is_finished for run in runs):
            return runs
        time.sleep(1)
    raise AssertionError("the backfill did not end")
