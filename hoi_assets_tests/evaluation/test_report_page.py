"""The page itself: hostile prompts stay text, old versions can be read, the gallery has a limit."""

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.engines.vilt.decision import verdict_label
from hoi_assets.evaluation.report import TEMPLATES, build_report
from hoi_assets.evaluation.report_gallery import describe_gallery
from hoi_assets.evaluation.report_pairs import describe_pairs
from hoi_assets.evaluation.report_verdicts import GALLERY_IMAGES, READ, read_verdicts
from hoi_assets.ppv.verdicts import VERDICT_ROWS
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.evaluation.report_parents import (
    defect_map,
    publish,
    publish_verdicts,
    verdict,
    verifier_tables,
)
from hoi_assets_tests.rating.conftest import picture

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> url(http://x) {{ 7 }}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def page_of(store: Store, parents: dict[str, Any]) -> str:
    page = build_report(store, load_settings("tiny"), parents)
    assert page.summary["external_references"].item() == 0
    return page.html


def test_prompts_stay_text_wherever_they_are_shown(store: Store) -> None:
    rows = [
        verdict(store, 0, prompt=HOSTILE),
        verdict(store, 1, "low_fidelity", prompt=HOSTILE, defect_kind=HOSTILE),
        verdict(store, 2, HOSTILE, prompt=HOSTILE),
    ]
    text = page_of(store, {"verified_pairs": {"hook": publish_verdicts(store, rows)}})
    assert "<img src=x" not in text and "alert(1)</script>" not in text
    assert text.count("<script") == text.count("</script") == 1
    assert html.escape(HOSTILE, quote=False).replace("'", "&#39;").replace('"', "&#34;") in text


def test_page_may_run_its_own_script_alone_and_fetch_nothing(store: Store) -> None:
    text = page_of(store, {})
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = html.unescape(policy)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name in ("report.css.j2", "report.js.j2"):
        part = (TEMPLATES / name).read_text(encoding="utf-8")
        assert not re.search(r"url\(|@import|https?:|fetch\(|innerHTML", part), name


def test_defects_are_outlined_where_the_verdict_is_about_fidelity(store: Store) -> None:
    spot = defect_map(store)
    rows = [
        verdict(store, 0, "low_fidelity", defect_map=spot, defect_kind="extra_finger"),
        verdict(store, 1, "low_fidelity_and_alignment", defect_map=spot),
        verdict(store, 2, "low_alignment", defect_map=spot, defect_kind="extra_finger"),
        verdict(store, 3, defect_map=spot),
        verdict(store, 4, "low_fidelity", defect_map=defect_map(store, brightest=100)),
        verdict(store, 5, "low_fidelity"),
    ]
    parents = {"verified_pairs": {"hook": publish_verdicts(store, rows)}}
    shown = describe_gallery(store, read_verdicts(parents))["pictures"]
    assert [row["outline"] is not None for row in shown] == [True, True, False, False, False, False]
    # As the contact sheets and `hoi trace` call it.
    assert [row["label"] for row in shown] == [
        verdict_label(row["status"], row["reason"], row["defect_kind"]) for row in rows
    ]
    assert "low fidelity: extra finger" in page_of(store, parents)


def test_versions_from_before_there_were_maps_are_shown_without(store: Store) -> None:
    rows = VERDICT_ROWS.frame([verdict(store, 0, "low_fidelity"), verdict(store, 1)])
    old = rows.drop("defect_map", "defect_share", "defect_kind")
    new = [verdict(store, 2, "low_fidelity", defect_map=defect_map(store), defect_share=0.1)]
    parents = {
        "verified_pairs": {
            "hook": publish(store, "verified_pairs", "hook", rows=old),
            "worn": publish_verdicts(store, new, "worn"),
        }
    }
    table = read_verdicts(parents)
    assert table.select(*READ).schema == pl.Schema(READ)
    assert table["defect_map"].is_null().to_list() == [True, True, False]
    text = page_of(store, parents)
    assert text.count('class="outline"') == 2  # in the gallery and among the rejected
    assert "10% of it looks defective" in text


def test_gallery_has_a_limit_and_every_verdict_a_place(store: Store) -> None:
    row = verdict(store, 0)
    rows = [row | {"image_id": f"{n:016x}"} for n in range(GALLERY_IMAGES + 60)]
    rows[-1] |= {"status": "rejected", "reason": "low_alignment"}
    parents = {"verified_pairs": {"hook": publish_verdicts(store, rows)}}
    gallery = describe_gallery(store, read_verdicts(parents))
    assert len(gallery["pictures"]) == GALLERY_IMAGES
    assert "low_alignment" in {shown["label"] for shown in gallery["pictures"]}
    said = f"{GALLERY_IMAGES} of {GALLERY_IMAGES + 60} candidates"
    text = page_of(store, parents)
    assert said in text and len(text) < 1 << 20


def test_large_pictures_are_scaled_down(store: Store) -> None:
    rows = [verdict(store, 0, pixels=store.images.put(picture(0, 1024)))]
    parents = {"verified_pairs": {"hook": publish_verdicts(store, rows)}}
    assert len(page_of(store, parents)) < 200_000


def test_verifier_section_opens_with_what_it_can_and_cannot_tell(store: Store) -> None:
    published = publish(store, "verifier", **verifier_tables("fidelity", (0.7, 0.6, 0.78)))
    text = page_of(store, {"verifier": published})
    section = text.split('<h2 id="verifier">')[1]
    assert section.index("Fidelity is not judged") < section.index("Thresholds were chosen")
    assert "the target of 95% is missed" in section


def test_page_reads_without_its_script(store: Store) -> None:
    rows = [verdict(store, 0), verdict(store, 1, "low_alignment")]
    text = page_of(store, {"verified_pairs": {"hook": publish_verdicts(store, rows)}})
    plain = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert f"hoi trace {rows[0]['image_id']}" in plain
    # What needs the script is hidden until it runs.
    assert re.findall(r"<(form|button)[^>]*>", plain) == ["button", "form", "button"]
    assert all("hidden" in tag for tag in re.findall(r"<(?:form|button)[^>]*>", plain))


def test_methods_are_shown_side_by_side_for_the_same_prompt_and_noise(store: Store) -> None:
    drawn = [
        {
            "suite": suite,
            "method": method,
            "category": "hook",
            "evaluation_prompt_id": f"{suite}{prompt}",
            "prompt": f"hand {prompt}",
            "seed": seed,
            "pixels": store.images.put(picture(10 * prompt + seed)),
        }
        for suite in ("hoi", "general")
        for prompt in range(4)
        for seed in range(2)
        for method in ("finetuned", "base")
        if (prompt, method) != (0, "base")  # the first prompt has one method only
    ]
    images = publish(store, "hoi_evaluation_images", "hook", rows=drawn)
    pairs = describe_pairs(store, {"hoi_evaluation_images": {"hook": images}})
    assert [pair["prompt"] for pair in pairs] == ["hand 1", "hand 2"]
    for pair in pairs:
        assert [shown["method"] for shown in pair["pictures"]] == ["base", "finetuned"]
        # One seed: these pictures depend on prompt and seed alone.
        assert len({shown["src"] for shown in pair["pictures"]}) == 1
