"""The rating page in a real browser: two raters at once, by keys alone, through a crash."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.evaluation.human_agreement import measure_rater_agreement
from hoi_assets.evaluation.human_ratings import estimate_win_rates
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import read_fault, read_study
from hoi_assets.rating.study_making import StudyImage, make_study
from hoi_assets.rating.vote_tables import votes_table
from hoi_assets.rating.votes import read_lines
from hoi_assets_tests.chromium import running_chromium
from hoi_assets_tests.rating.conftest import METHODS, offers
from hoi_assets_tests.rating.server import Server

pytestmark = pytest.mark.timeout(600)

STEP_MS = 60_000
PROMPTS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "which method is better"
    given = [
        StudyImage(
            f"A left hand presses the button of a red box number {number // 2} with its index "
            "finger while the other hand holds a blue cup",
            one.method,
            one.image,
            scenario=one.scenario,
        )
        for number, one in enumerate(offers(tmp_path / "drawn", PROMPTS, size=128))
    ]
    make_study(place, "pairwise", given, seed=5, repeat_share=0.1)
    return place


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    with running_chromium() as opened:
        yield opened


def open_page(browser: Any, link: str, seen: list[str]) -> Any:
    page = browser.new_context(viewport={"width": 1300, "height": 850}).new_page()
    page.set_default_timeout(STEP_MS)
    page.on("request", lambda request: seen.append(request.url))
    page.goto(link)
    return page


def shows(page: Any, done: int) -> None:
    """Wait until that many are done and the next pictures, if any, are on the page."""
    page.get_by_text(f"{done} of {PROMPTS + 1}", exact=True).wait_for()
    # Not wait_for_function: the page's content policy forbids what it evaluates.
    end = time.monotonic() + STEP_MS / 1000
    while not page.evaluate("ready"):
        assert time.monotonic() < end, "the next pictures did not come"
        page.wait_for_timeout(20)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        done = int(page.locator("#count").inner_text().split()[0])
        page.keyboard.press(key)
        shows(page, done + 1)


def counted(folder: Path, rater: str) -> pl.DataFrame:
    return votes_table(folder).filter((pl.col("status") == "accepted") & (pl.col("rater") == rater))


def test_two_raters_vote_by_keys_leave_resume_and_lose_nothing_in_a_crash(
    folder: Path, server: Server, browser: Any
) -> None:
    seen: list[str] = []
    anna, ben = make_links(folder, ["anna", "ben"], server.url).values()
    first, second = open_page(browser, anna, seen), open_page(browser, ben, seen)
    shows(first, 0), shows(second, 0)

    for width in first.locator("figure img").evaluate_all("all => all.map(one => one.width)"):
        assert width > 400
    assert first.evaluate("document.documentElement.scrollHeight <= innerHeight")

    press(first, "ArrowLeft", "b")
    press(second, "=", "ArrowRight", "a")
    assert (counted(folder, "anna").height, counted(folder, "ben").height) == (2, 3)

    # Taken back and given anew.
    first.keyboard.press("Backspace")
    shows(first, 1)
    assert counted(folder, "anna").height == 1
    press(first, "a")

    # Left, and resumed at the same item in another window.
    prompt = first.locator("#prompt").inner_text()
    pictures = first.locator("figure img").evaluate_all("all => all.map(one => one.src)")
    first.context.close()
    first = open_page(browser, anna, seen)
    shows(first, 2)
    assert first.locator("#prompt").inner_text() == prompt
    assert first.locator("figure img").evaluate_all("all => all.map(o => o.src)") == pictures

    # Killed between two votes; one is given while the server is gone.
    server.kill()
    assert (counted(folder, "anna").height, counted(folder, "ben").height) == (2, 3)
    first.keyboard.press("ArrowRight")
    first.get_by_text("not kept yet").wait_for()
    server.start()
    shows(first, 3)
    assert counted(folder, "anna").height == 3
    press(second, "ArrowLeft")
    server.kill()
    server.start()

    press(first, *["ArrowLeft"] * (PROMPTS + 1 - 3))
    press(second, *["ArrowRight"] * (PROMPTS + 1 - 4))
    for page in (first, second):
        page.get_by_text("That was the last one").wait_for()
        html = page.content().lower()
        assert not [name for name in (*METHODS, folder.name) if name in html]
    told = " ".join(seen).lower()
    assert not [name for name in (*METHODS, folder.name, ".png", "sha") if name in told]
    assert {url.split("/")[2] for url in seen if url.startswith("http")} == {
        f"127.0.0.1:{server.port}"
    }

    votes = votes_table(folder)
    for rater in ("anna", "ben"):
        own = counted(folder, rater)
        assert own.height == PROMPTS + 1 and own["place"].sort().to_list() == list(
            range(1, PROMPTS + 2)
        )
    rates = estimate_win_rates(votes, samples=100).filter(slice_kind="all")
    assert rates["method"].to_list() == sorted(METHODS) and rates["n"].to_list() == [20, 20]
    repeats = measure_rater_agreement(votes, samples=100).filter(measure="self_agreement")
    assert set(repeats["rater"]) == {None, "anna", "ben"}


def test_unseen_pictures_cannot_be_voted_on_and_held_keys_vote_once(
    folder: Path, server: Server, browser: Any
) -> None:
    (link,) = make_links(folder, ["anna"], server.url).values()
    page = open_page(browser, link, [])
    shows(page, 0)
    for _ in range(5):
        # A key that repeats by itself, then another pressed before the answer is there.
        page.keyboard.down("ArrowLeft")
    page.keyboard.press("ArrowRight")
    shows(page, 1)
    assert votes_table(folder).height == 1


def test_unknown_link_shows_a_reason(folder: Path, server: Server, browser: Any) -> None:
    page = open_page(browser, f"{server.url}/r/guess/", [])
    assert "not known" in page.content()


def test_a_fault_is_clicked_then_named(tmp_path: Path, browser: Any) -> None:
    folder = tmp_path / "labels"
    make_study(folder, "verify", offers(tmp_path / "drawn", 1, size=128), repeat_share=0)
    server = Server(folder)
    try:
        (link,) = make_links(folder, ["anna"], server.url).values()
        page = open_page(browser, link, [])
        page.get_by_role("button", name="no").click()
        named = page.get_by_role("button", name="too many fingers")
        named.wait_for()
        assert named.is_disabled()
        page.keyboard.press("1")  # nothing was clicked yet
        picture = page.locator("figure img")
        box = picture.bounding_box()
        picture.click(position={"x": 0.25 * box["width"], "y": 0.75 * box["height"]})
        page.locator(".mark").wait_for()
        page.keyboard.press("1")
        page.get_by_role("button", name="yes").wait_for()
        assert page.locator(".mark").count() == 0
    finally:
        server.kill()
    (vote,) = [line.vote for line in read_lines(folder, read_study(folder)) if line.vote][1:]
    fault = read_fault(vote.answer)
    assert fault is not None and fault.kind == "extra_finger"
    assert abs(fault.x - 0.25) < 0.01 and abs(fault.y - 0.75) < 0.01
