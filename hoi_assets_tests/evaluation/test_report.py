"""The report shows what is published: of PPV, of DetailScribe, or of both."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.evaluation.metric_agreement import METRIC_AGREEMENT
from hoi_assets.evaluation.report import REPORT_SUMMARY, Page, build_report
from hoi_assets.evaluation.scorecards import SCORES, compare_methods, make_scorecard
from hoi_assets.settings import Evaluation, load_settings
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.evaluation.report_parents import publish
from hoi_assets_tests.rating.conftest import picture

PPV_SECTIONS = {"stages", "verdicts", "scores"}
DETAILSCRIBE_SECTIONS = {"interacting"}
SETTINGS = load_settings("tiny")


def publish_scorecard(store: Store, asset: str, suite: str, methods: list[str]) -> Published:
    scores = SCORES.frame(
        {
            **dict.fromkeys(SCORES.schema),
            "suite": suite,
            "method": method,
            "category": "hook" if suite == "hoi" else None,
            "scenario": "functional" if suite == "interacting" else None,
            "evaluation_prompt_id": f"p{number}",
            "image_id": f"{method}{number}",
            "pixels": f"{method}{number}",
            "metric": "clip_score",
            "value": number + place,
        }
        for number in range(3)
        for place, method in enumerate(methods)
    )
    config = Evaluation(bootstrap_samples=100)
    return publish(
        store,
        asset,
        scores=scores,
        scorecard=make_scorecard(scores, config),
        comparisons=compare_methods(scores, config),
        metric_agreement=pl.DataFrame(schema=METRIC_AGREEMENT.schema),
    )


def ppv(store: Store) -> dict[str, Any]:
    """Verdicts of one hand pose, none of another, and a scorecard."""
    categories = [
        {"category": name, "name": name.title(), "definition": f"a {name}"}
        for name in ("hook", "worn")
    ]
    verdicts = [
        {
            "image_id": f"i{number}",
            "prompt": f"a hand carries bag {number}",
            "pixels": store.images.put(picture(number)),
            "p_fidelity": 0.9,
            "p_alignment": 0.9,
            "p_pair": 0.8,
            "status": "accepted" if number else "rejected",
            "reason": None if number else "fidelity",
        }
        for number in range(3)
    ]
    return {
        "base_prompt_taxonomy": publish(store, "base_prompt_taxonomy", categories=categories),
        "verified_pairs": {"hook": publish(store, "verified_pairs", "hook", rows=verdicts)},
        "category_loras": {},
        "verifier": None,
        "hoi_scorecards": publish_scorecard(store, "hoi_scorecards", "hoi", ["base", "finetuned"]),
    }


def detailscribe(store: Store) -> dict[str, Any]:
    """Critiques and variants of one scenario, and a scorecard."""
    findings = [
        {"row_id": "r0", "satisfied": False, "problem": "the lid is missing"},
        {"row_id": "r0", "satisfied": True, "problem": "nothing"},
    ]
    refined = [
        {
            "row_id": f"r{row}",
            "prompt": f"a hand stirs pot {row}",
            "method": "detailscribe",
            "candidate": candidate,
            "image_id": f"d{row}{candidate}",
            "switch_step": candidate or None,
            "pixels": store.images.put(picture(100 + 10 * row + candidate)),
            "satisfied": 1,
            "selected": candidate == 1,
        }
        for row in range(2)
        for candidate in range(2)
    ]
    return {
        "image_critiques": {
            "functional": publish(store, "image_critiques", "functional", findings=findings)
        },
        "refined_images": {
            "functional": publish(store, "refined_images", "functional", rows=refined)
        },
        "interacting_scorecards": publish_scorecard(
            store, "interacting_scorecards", "interacting", ["plain", "detailscribe"]
        ),
    }


def sections(page: Page) -> set[str]:
    return {part.split('"')[0] for part in page.html.split('<h2 id="')[1:]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_report_of_detailscribe_alone_has_no_section_of_ppv(store: Store) -> None:
    page = build_report(store, SETTINGS, detailscribe(store))
    assert sections(page) == DETAILSCRIBE_SECTIONS | {"versions"}
    assert 'href="#stages"' not in page.html and 'href="#interacting"' in page.html
    assert "the lid is missing" in page.html and "nothing to correct" in page.html
    assert "switch after 1" in page.html
    assert "detailscribe − plain" in page.html
    assert page.summary.row(0, named=True) == {
        "bytes": len(page.html.encode()),
        "pictures": 4 + 1,
        "external_references": 0,
    }
    assert dict(page.summary.schema) == REPORT_SUMMARY.schema


def test_report_of_ppv_alone_has_no_section_of_detailscribe(store: Store) -> None:
    page = build_report(store, SETTINGS, ppv(store))
    assert sections(page) == PPV_SECTIONS | {"versions"}
    assert "InterActing" not in page.html
    assert "Not published, or blocked by a gate: Worn." in page.html
    assert "finetuned − base" in page.html
    assert page.summary["external_references"].item() == 0


def test_report_of_both_pipelines_has_the_sections_of_both(store: Store) -> None:
    page = build_report(store, SETTINGS, ppv(store) | detailscribe(store))
    assert sections(page) == PPV_SECTIONS | DETAILSCRIBE_SECTIONS | {"versions"}
    for parents in (ppv(store), detailscribe(store)):
        alone = build_report(store, SETTINGS, parents)
        assert sections(alone) < sections(page)


def test_scores_show_without_images_and_images_without_scores(store: Store) -> None:
    parents = detailscribe(store)
    scores = {"interacting_scorecards": parents.pop("interacting_scorecards")}
    assert "Paired differences" in build_report(store, SETTINGS, scores).html
    images = build_report(store, SETTINGS, parents).html
    assert "Paired differences" not in images and "switch after 1" in images
    # Without a critique nobody knows whether there was something to correct.
    del parents["image_critiques"]
    assert "nothing to correct" not in build_report(store, SETTINGS, parents).html


def test_nothing_published_gives_a_page_without_sections(store: Store) -> None:
    page = build_report(store, SETTINGS, {"refined_images": {}, "hoi_scorecards": None})
    assert sections(page) == {"versions"}
    assert page.summary["pictures"].item() == 0


def test_versions_link_to_their_data_docs_without_external_references(store: Store) -> None:
    docs = {"verified_pairs/hook": "../docs/hook.html", "hoi_scorecards": "../docs/scores.html"}
    page = build_report(store, SETTINGS, ppv(store), data_docs=docs)
    for link in docs.values():
        assert f'<a href="{link}">Data Docs</a>' in page.html
    assert page.html.count(">Data Docs<") == 2
    assert page.summary["external_references"].item() == 0
    page = build_report(store, SETTINGS, ppv(store), {"hoi_scorecards": "https://x.org/"})
    assert page.summary["external_references"].item() == 1


def test_texts_that_were_cut_are_one_line_per_encoder_and_nothing_where_all_were_read(
    store: Store,
) -> None:
    columns = {"text_encoder_tokens": [9, 90], "text_encoder_2_tokens": [9, 80]}
    whole = {"rows": pl.DataFrame(columns | {"cut_by": [None, None], "prompt_cut": [False] * 2})}
    images = publish(store, "candidate_images", "hook", **whole)
    parents: dict[str, Any] = ppv(store) | {"candidate_images": {"hook": images}}
    assert "read only in part" not in build_report(store, load_settings(), parents).html

    cut = pl.DataFrame(columns | {"cut_by": [None, "text_encoder_2"], "prompt_cut": [False] * 2})
    images = publish(store, "candidate_images", "hook", rows=cut)
    scores = SCORES.frame(
        {**dict.fromkeys(SCORES.schema), "metric": metric, "prompt_tokens": 9, "prompt_cut": is_cut}
        for metric, is_cut in (("clip_score", False), ("image_reward", True))
    )
    card = parents["hoi_scorecards"]
    judged = {name: card.table(name) for name in ("scorecard", "comparisons", "metric_agreement")}
    parents |= {
        "candidate_images": {"hook": images},
        "hoi_scorecards": publish(store, "hoi_scorecards", scores=scores, **judged),
    }
    (line,) = [
        line
        for line in build_report(store, load_settings(), parents).html.splitlines()
        if "read only in part" in line
    ]
    assert "SDXL text_encoder_2 1 of 2 (50%); hoi image_reward 1 of 1 (100%)." in line
    assert "clip_score" not in line and "text_encoder 1" not in line


def test_report_names_what_was_made_from_an_earlier_version_than_it_shows(store: Store) -> None:
    old = publish(store, "detailed_prompts", "hook", rows=[{"prompt": "before"}])
    drawn = publish(
        store, "candidate_images", "hook", {old.name: old.version}, rows=[{"prompt": "before"}]
    )
    parents = {"detailed_prompts": {"hook": old}, "candidate_images": {"hook": drawn}}
    assert "does not all belong together" not in build_report(store, SETTINGS, parents).html
    new = publish(store, "detailed_prompts", "hook", rows=[{"prompt": "after"}])
    html = build_report(store, SETTINGS, parents | {"detailed_prompts": {"hook": new}}).html
    assert "does not all belong together" in html
    assert (
        f"candidate_images/hook was made from detailed_prompts/hook <code>{old.version}</code>; "
        f"shown here is <code>{new.version}</code>" in html
    )


def test_every_link_inside_the_page_has_its_target(store: Store) -> None:
    for parents in ({}, ppv(store), ppv(store) | detailscribe(store)):
        html = build_report(store, SETTINGS, parents).html
        targets = re.findall(r'href="#([^"]+)"', html)
        assert targets and all(f'id="{target}"' in html for target in targets)
        assert "human-ratings" not in targets  # there are no votes
