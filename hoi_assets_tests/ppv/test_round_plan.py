"""What a round asks for, on the committed taxonomy and the built-in prompter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.ppv.detailed_prompts import detail_prompts, detailed_prompts_table, make_prompter
from hoi_assets.ppv.endpoint_prompter import EndpointPrompter
from hoi_assets.ppv.instance_images import (
    MoreImages,
    read_instance_images,
    rounds_of_images,
)
from hoi_assets.ppv.round_plan import (
    RoundPlan,
    more_images,
    plan_round,
    read_plan,
    round_requests,
)
from hoi_assets.ppv.slices import count_slices, judged_prompts, slices_of
from hoi_assets.ppv.slots import words_named
from hoi_assets.ppv.verdicts import VERDICT_ROWS
from hoi_assets.settings import ROOT, InstanceImages, Prompter, Rounds
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import Category, load_taxonomy
from hoi_assets_tests.llm.chat_server import Answer, Server

TAXONOMY = load_taxonomy(ROOT / "data" / "taxonomy")
CATEGORY = TAXONOMY.category("power_sphere")
SETTINGS = Prompter(per_base_prompt=4)
Accept = Callable[[dict[str, Any]], bool]


def prompts_of(plan: RoundPlan, category: Category = CATEGORY) -> pl.DataFrame:
    """Rows of `detailed_prompts` with what the rounds ask for."""
    found = detail_prompts(
        category,
        TAXONOMY,
        make_prompter(SETTINGS),
        SETTINGS,
        log=lambda line: None,
        more=round_requests(category, plan),
    )
    return detailed_prompts_table(found)


def verdicts_on(prompts: pl.DataFrame, accept: Accept) -> pl.DataFrame:
    """One verdict per accepted prompt: accepted where the prompt's row meets the condition."""
    rows = []
    for row in prompts.filter(pl.col("status") == "accepted").iter_rows(named=True):
        good = accept(row)
        rows.append(
            dict.fromkeys(VERDICT_ROWS.schema)
            | {
                "image_id": row["prompt_id"],
                "prompt_id": row["prompt_id"],
                "category": row["category"],
                "prompt": row["prompt"],
                "pixels": row["prompt_id"],
                "status": "accepted" if good else "rejected",
                "reason": None if good else "low_alignment",
                "verifier_version": "v",
            }
        )
    return VERDICT_ROWS.frame(rows)


def plan_from(accept: Accept, plan: RoundPlan | None = None, **options: Any) -> RoundPlan:
    plan = plan or read_plan(None)
    prompts = prompts_of(plan)
    verdicts = verdicts_on(prompts, accept)
    return plan_round(CATEGORY, plan, prompts, verdicts, "v", Rounds(**options))


def never(row: dict[str, Any]) -> bool:
    return False


def test_slices_with_fewest_accepted_come_first_then_those_drawn_least() -> None:
    plan = plan_from(lambda row: row["view"] == "front", prompts=200)
    slices = plan.slices.filter("thin")
    assert slices["accepted"].max() == 0
    asked = plan.prompts.join(
        slices, on=["object", "skin_tone", "view", "side"], maintain_order="left"
    )
    assert asked.height == plan.prompts.height == slices.height  # one prompt each
    assert asked["drawn"].to_list() == sorted(asked["drawn"])
    few = plan_from(lambda row: row["view"] == "front", prompts=5)
    assert few.prompts.equals(plan.prompts.head(5))


def test_a_covered_slice_is_asked_for_until_enough_are_accepted() -> None:
    once, twice = (
        plan_from(lambda row: True, enough_accepted=enough, prompts=500) for enough in (1, 2)
    )
    assert once.slices.filter("thin")["accepted"].to_list() == [0] * once.prompts.height
    assert set(twice.slices.filter("thin")["accepted"]) == {0, 1}


@pytest.mark.parametrize("key", sorted(TAXONOMY.categories))
def test_prompts_of_a_round_show_what_it_asked_for(key: str) -> None:
    category = TAXONOMY.category(key)
    first = prompts_of(read_plan(None), category)
    verdicts = verdicts_on(first, never)
    plan = plan_round(category, read_plan(None), first, verdicts, "v", Rounds(prompts=20))
    both = prompts_of(plan, category)
    assert both.head(first.height).equals(first)
    new = both.tail(both.height - first.height)
    assert new.height == 20
    names = ["index", "object", "skin_tone", "view", "side"]
    assert new.select(names).equals(plan.prompts.select(names))
    # A near-duplicate of an earlier prompt may be among them; a contradiction may not.
    assert all(
        (reason or "near_duplicate").startswith("near_duplicate") for reason in new["reason"]
    )
    counted = count_slices(category, judged_prompts(category, both, verdicts_on(both, never)))
    assert counted["drawn"].sum() == both.filter(pl.col("status") == "accepted").height


def test_no_base_prompt_is_asked_for_what_it_contradicts() -> None:
    for category in TAXONOMY.categories.values():
        for own, bases in slices_of(category).items():
            for base in bases:
                named = words_named(base.text)
                for slot in ("skin_tone", "view", "side"):
                    assert getattr(own, slot) in named.get(slot, (getattr(own, slot),))


def test_a_round_stays_as_it_was_planned_whatever_verdicts_say_later() -> None:
    first = plan_from(lambda row: row["side"] == "left")
    second = plan_from(lambda row: row["side"] == "right", first)
    assert second.number == 2
    for name, table in first.tables().items():
        assert second.tables()[name].filter(pl.col("round") == 1).equals(table)
    earlier = prompts_of(first)
    assert prompts_of(second).head(earlier.height).equals(earlier)


def test_words_that_are_rejected_more_than_the_rest_are_avoided() -> None:
    plan = plan_from(lambda row: row["light"] != "dim light", prompts=8)
    assert plan.prompts["avoid"].to_list() == [["dim light"]] * 8
    asked = prompts_of(plan).filter(pl.col("index") >= 1000)
    assert "dim light" not in asked["light"].to_list()


def test_a_lora_is_renewed_only_where_too_little_is_accepted() -> None:
    bad, good = (plan_from(accept).rows.row(0, named=True) for accept in (never, lambda row: True))
    assert bad["renews_lora"] and bad["instance_images"] == 4 and bad["accepted"] == 0
    assert not good["renews_lora"] and good["instance_images"] == 0


def test_reasons_are_counted_by_their_code() -> None:
    plan = plan_from(lambda row: row["object"] == "ball")
    (row,) = plan.reasons.to_dicts()
    judged = plan.rows.row(0, named=True)
    assert row["reason"] == "low_alignment"
    assert row["candidates"] == judged["drawn"] - judged["accepted"]


def test_an_endpoint_is_told_slice_reasons_and_words_to_avoid(
    chat_server: Callable[..., Server],
) -> None:
    plan = plan_from(lambda row: row["light"] != "dim light", prompts=1)
    (request,) = round_requests(CATEGORY, plan)
    assert request.wish is not None
    server = chat_server("")
    options = Prompter(endpoint=server.url, model="m", concurrency=1)
    prompter = EndpointPrompter(options)
    reply = make_prompter(SETTINGS).ask({"k": request}, lambda *_: None, print)["k"].value
    assert reply is not None
    server.behaviour = lambda sent, number: Answer(json.dumps(reply.model_dump()))
    key = request.key(0, prompter.identity)
    answered = prompter.ask({key: request}, lambda *_: None, lambda line: None)
    assert answered[key].value == reply
    sent = server.requests[0]
    text = " ".join(message["content"] for message in sent["messages"])
    for word in (request.wish.view, request.wish.skin_tone, "low_alignment", "dim light"):
        assert word in text
    fields = sent["response_format"]["json_schema"]["schema"]["properties"]
    assert fields["view"]["enum"] == [request.wish.view]


def test_scenes_nearest_to_what_is_asked_for_come_after_those_there_were(tmp_path: Path) -> None:
    images, options = Store(tmp_path / "home").images, InstanceImages(per_category=8)
    first = read_instance_images("worn", options, images)
    wanted = {"object": "watch", "skin_tone": "dark", "view": "above", "side": "left"}
    more = [MoreImages(1, 2, [wanted]), MoreImages(2, 3, [wanted])]
    both = read_instance_images("worn", options, images, more)
    assert both.head(8).equals(first) and both.height == 13
    rounds = rounds_of_images(both, options, more)
    assert rounds["round"].to_list() == [0] * 8 + [1] * 2 + [2] * 3
    scenes = pl.read_parquet(ROOT / "data/pool/scenes.parquet").filter(category="worn")
    alike = {
        row["scene_id"]: sum(row[name] == word for name, word in wanted.items())
        for row in scenes.iter_rows(named=True)
    }
    taken = [alike[source] for source in both["source"].to_list()[8:]]
    assert taken == sorted(taken, reverse=True)
    left = set(scenes["scene_id"]) - set(both["source"])
    assert min(taken) >= max(alike[one] for one in left if one.startswith("instance"))


def test_a_folder_gives_its_next_files_and_a_plan_without_renewal_asks_for_none(
    tmp_path: Path,
) -> None:
    from PIL import Image

    (tmp_path / "own" / "worn").mkdir(parents=True)
    for number in range(5):
        picture = Image.new("RGB", (80, 80), (number * 40, 0, 0))
        picture.save(tmp_path / "own" / "worn" / f"{number}.png")
    options = InstanceImages(folder=str(tmp_path / "own"), per_category=2)
    more = more_images(plan_from(never, instance_images=2))
    assert [one.count for one in more] == [2]
    rows = read_instance_images("worn", options, Store(tmp_path / "home").images, more)
    assert rows["status"].to_list() == ["accepted"] * 4 + ["rejected"]
    assert rounds_of_images(rows, options, more)["round"].to_list() == [0, 0, 1, 1]
    assert more_images(plan_from(lambda row: True)) == []
