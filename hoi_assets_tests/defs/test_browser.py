"""The UI in a real browser: clicks that materialise, contact sheet, Data Docs, staleness, runs."""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hoi_assets.store.versions import Store
from hoi_assets_tests.chromium import running_chromium
from hoi_assets_tests.cli.homes import fill_home
from hoi_assets_tests.pipeline_fixture import hoi, write_profile
from hoi_assets_tests.ui_process import START_S, running_ui

pytestmark = pytest.mark.timeout(1800)

STEP_MS = 90_000
CATEGORY = "hook"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """Dagster's UI and daemon, as `make ui` starts them, on a free port."""
    with running_ui(home / "home", write_profile(home)) as address:
        yield address


@pytest.fixture
def page(home: Path) -> Iterator["object"]:
    with running_chromium() as browser:
        opened = browser.new_page(viewport={"width": 1300, "height": 900})
        opened.set_default_timeout(STEP_MS)
        yield opened


def test_category_materialised_by_clicks_shows_its_contact_sheet(page, url, home) -> None:  # type: ignore[no-untyped-def]
    store = Store(home / "home")
    page.goto(f"{url}/assets/base_prompt_taxonomy")
    page.get_by_role("button", name="Materialize").first.click()
    _until(lambda: store.current("base_prompt_taxonomy"))

    page.goto(f"{url}/assets/instance_images")
    page.get_by_role("button", name="Materialize").first.click()
    # No round was planned yet, so `round_plan` is missing.
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Select a partition or create one").first.click()
    page.locator("label").filter(has_text=CATEGORY).first.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("^Launch 1 run")).click()
    _until(lambda: store.current("instance_images", CATEGORY))

    page.goto(f"{url}/assets/instance_images?view=partitions&partition={CATEGORY}")
    page.get_by_text("[Show Markdown]").first.click()
    sheet = page.locator('img[src^="data:image/"]').first
    sheet.wait_for(state="visible")
    width, height = sheet.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 300 and height > 100
    shot = page.screenshot(path=home / "contact_sheet.png")
    assert shot[:4] == b"\x89PNG"


def test_data_docs_open_from_the_checks_metadata(page, url, home) -> None:  # type: ignore[no-untyped-def]
    store = Store(home / "home")
    page.goto(f"{url}/assets/human_ratings")
    page.get_by_role("button", name="Materialize").first.click()
    _until(lambda: store.current("human_ratings"))
    link = page.locator('a[href*="/data_docs/"]').first
    _until(lambda: _shown(page, f"{url}/assets/human_ratings?view=checks", link))
    with page.expect_popup() as opened:
        link.click()
    docs = opened.value
    docs.get_by_text("All 13 expectations hold").wait_for()
    assert docs.get_by_text("ratings_outside_1_to_5").is_visible()
    docs.get_by_role("link", name="Data Docs").click()
    docs.get_by_text("Latest validation of each table").wait_for()


def test_a_changed_setting_shows_the_asset_unsynced_before_anything_runs(page, url, home) -> None:  # type: ignore[no-untyped-def]
    store = Store(home / "home")
    page.goto(f"{url}/assets/human_ratings")
    if store.current("human_ratings") is None:
        page.get_by_role("button", name="Materialize").first.click()
        _until(lambda: store.current("human_ratings"))
    page.get_by_text("Latest materialization").first.wait_for()
    assert page.get_by_text("Unsynced").count() == 0
    before = store.require("human_ratings").version
    write_profile(home, evaluation={"bootstrap_samples": 321})
    _reload_definitions(url)
    unsynced = page.get_by_text("Unsynced").first
    _until(lambda: _shown(page, f"{url}/assets/human_ratings", unsynced))
    assert store.require("human_ratings").version == before
    write_profile(home)
    _reload_definitions(url)


@pytest.fixture(scope="module")
def command_line_run(url: str, home: Path) -> str:
    """Id of a run that `hoi run` made beside the UI: of the report alone, over made-up assets."""
    profile = write_profile(home)
    fill_home(home / "home", 3, profile=str(profile))
    for evidence in (home / "home" / "gates" / "evaluation_report" / "_").glob("*.json"):
        evidence.unlink()
    hoi(home / "home", profile, "run", "--only", "stale")
    with dg.DagsterInstance.from_config(str(home / "home" / "dagster")) as instance:
        (run,) = [run for run in instance.get_runs() if run.job_name == "evaluation"]
    return run.run_id


RUNS_OF_JOB = """{ repositoryOrError(repositorySelector: {
  repositoryName: "__repository__", repositoryLocationName: "hoi_assets.definitions"
}) { ... on Repository { pipelines { name runs {
  runId repositoryOrigin { repositoryName repositoryLocationName }
} } } } }"""


def test_run_of_the_command_line_is_listed_under_its_job_as_those_of_the_ui(url, command_line_run):
    repository = _ask(url, RUNS_OF_JOB)["repositoryOrError"]
    runs = {job["name"]: job["runs"] for job in repository["pipelines"]}
    (run,) = [one for one in runs["evaluation"] if one["runId"] == command_line_run]
    assert run["repositoryOrigin"] == {
        "repositoryName": "__repository__",
        "repositoryLocationName": "hoi_assets.definitions",
    }


def test_run_of_the_command_line_is_on_the_overview_and_on_its_jobs_page(
    page, url, command_line_run
) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{url}/locations/hoi_assets.definitions/jobs/evaluation/runs")
    page.get_by_text(command_line_run[:8]).first.wait_for()
    page.goto(f"{url}/overview/activity/timeline")
    page.locator('a[href="/locations/hoi_assets.definitions/jobs/evaluation"]').first.wait_for()


def test_the_reports_link_in_the_ui_opens_the_report(page, url, command_line_run) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{url}/assets/evaluation_report")
    link = page.locator('a[href$="/report.html"]').first
    with page.expect_popup() as opened:
        link.click()
    opened.value.get_by_role("heading", name="Evaluation report").wait_for()


def _ask(url: str, query: str) -> dict[str, Any]:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.loads(reply.read())["data"]


def _reload_definitions(url: str) -> None:
    query = (
        'mutation { reloadRepositoryLocation(repositoryLocationName: "hoi_assets.definitions")'
        " { __typename } }"
    )
    found = _ask(url, query)["reloadRepositoryLocation"]
    assert found == {"__typename": "WorkspaceLocationEntry"}


def _shown(page, address: str, element) -> bool | None:  # type: ignore[no-untyped-def]
    """True once the page shows the element; None where it does not yet."""
    from playwright.sync_api import TimeoutError as NotShown

    page.goto(address)
    try:
        element.wait_for(timeout=10_000)
    except NotShown:
        return None
    return True


def _until(found) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found() is not None:
            return
        time.sleep(0.5)
    raise AssertionError("the run did not publish in time")
