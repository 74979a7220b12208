"""The report in a real browser: filters, zoom, colours, a phone's width, no request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.evaluation.report import build_report
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.chromium import running_chromium
from hoi_assets_tests.evaluation.report_parents import (
    defect_map,
    publish,
    publish_verdicts,
    verdict,
    verifier_tables,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEP_MS = 60_000
SHOWN = ".gallery figure:not([hidden])"
HOSTILE = "<img src=x onerror=document.title='owned'>" + "long" * 80


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = Store(folder / "home")
    spot = defect_map(store)
    hook = [verdict(store, n, defect_map=spot) for n in range(60)]
    worn = [
        verdict(store, 60, "low_alignment", prompt=HOSTILE),
        verdict(store, 61, "low_fidelity", defect_map=spot, defect_kind="melted"),
    ]
    parents = {
        "verified_pairs": {
            "hook": publish_verdicts(store, hook),
            "worn": publish_verdicts(store, worn, "worn"),
        },
        "verifier": publish(store, "verifier", **verifier_tables()),
    }
    path = folder / "report.html"
    path.write_text(build_report(store, load_settings("tiny"), parents).html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_chromium() as opened:
        yield opened


def open_page(browser: Any, path: Path, **context: Any) -> Any:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(STEP_MS)
    page.problems, page.requests = [], []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(path.as_uri())
    return page


def test_filters_narrow_the_gallery_by_pose_verdict_and_reason(
    browser: Any, page_file: Path
) -> None:
    page = open_page(browser, page_file)
    assert page.locator(SHOWN).count() == 48
    page.click("button.rest")
    assert page.locator(SHOWN).count() == 62
    page.select_option("select[name=verdict]", "rejected")
    assert page.locator(SHOWN).count() == 2
    page.select_option("select[name=reason]", "low_fidelity: melted")
    assert page.locator(SHOWN).count() == 1
    assert page.locator(f"{SHOWN} .outline").is_visible()
    page.uncheck("input[name=outlines]")
    assert not page.locator(f"{SHOWN} .outline").is_visible()
    page.select_option("select[name=category]", "hook")
    assert page.locator(SHOWN).count() == 0
    assert page.inner_text(".filters output") == "0 of 0 shown"
    assert not page.problems


def test_a_click_enlarges_a_picture_and_offers_its_trace_command(
    browser: Any, page_file: Path
) -> None:
    page = open_page(browser, page_file)
    page.click(f"{SHOWN} >> nth=0")
    assert page.locator("dialog .picture").bounding_box()["width"] > 400
    assert page.inner_text("dialog code") == f"hoi trace {0:016x}"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("dialog code") == f"hoi trace {1:016x}"
    page.get_by_text("Copy command").click()
    page.locator("dialog button", has_text="Cop").or_(
        page.locator("dialog button", has_text="Selected")
    ).wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.keyboard.press("Enter")  # the figure has the focus again
    assert page.locator("dialog").is_visible()
    assert not page.problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_the_reader_chooses(
    browser: Any, page_file: Path, scheme: str
) -> None:
    def is_dark() -> bool:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in ground[4:-1].split(",")) < 200

    page = open_page(browser, page_file, color_scheme=scheme)
    assert is_dark() == (scheme == "dark")
    page.click(".theme")
    assert is_dark() == (scheme == "light")


@pytest.mark.parametrize("script", [True, False])
def test_page_fits_a_phone_and_asks_for_nothing(
    browser: Any, page_file: Path, script: bool
) -> None:
    size = {"width": 390, "height": 844}
    page = open_page(browser, page_file, viewport=size, java_script_enabled=script)
    for summary in page.locator("details > summary").all():
        summary.click()
    wide = page.locator("body").evaluate("body => document.documentElement.scrollWidth")
    assert wide == 390
    assert page.locator(SHOWN).count() == (48 if script else 62)
    assert page.title() == "hoi-assets: evaluation report"
    assert [url for url in page.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert not page.problems
