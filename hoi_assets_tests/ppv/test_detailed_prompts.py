"""The slot grammar, the checks, and rows as `detail_prompts` gives them."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import caption
from hoi_assets.ppv.detailed_prompts import (
    DETAILED_PROMPT_ROWS,
    DetailedPrompt,
    detail_prompts,
    detailed_prompts_table,
    make_prompter,
)
from hoi_assets.ppv.prompt_checks import NearDuplicatePrompts, prompt_problem, similarity
from hoi_assets.ppv.slots import OpenSlots, PromptSlots, TinySlots, words_named
from hoi_assets.settings import ROOT, Prompter
from hoi_assets.taxonomy import BasePrompt, Category, load_taxonomy

TAXONOMY = load_taxonomy(ROOT / "data" / "taxonomy")
WRAP = TAXONOMY.category("power_wrap")


def quiet(line: str) -> None:
    pass


def detail(category: Category, **options: Any) -> list[DetailedPrompt]:
    settings = Prompter(**options)
    return detail_prompts(category, TAXONOMY, make_prompter(settings), settings, log=quiet)


def with_prompts(category: Category, *prompts: tuple[str, str]) -> Category:
    """The category with other base prompts, validated as from its file."""
    raw = category.model_dump(mode="json")
    raw["base_prompts"] = [{"text": text, "object": thing} for text, thing in prompts]
    return Category.model_validate(raw)


@pytest.mark.parametrize("key", TAXONOMY.categories)
def test_grammar_details_every_base_prompt_with_drawable_captions(key: str) -> None:
    category = TAXONOMY.category(key)
    rows = detail(category, per_base_prompt=4)
    assert len(rows) == 4 * len(category.base_prompts)
    assert len({row.prompt_id for row in rows}) == len(rows)
    for row in rows:
        assert row.status == "accepted" or (row.reason or "").startswith("near_duplicate: of ")
        assert row.slots is not None and row.prompt == caption(row.slots)
        assert row.slots["contact"] == category.contact_surface
        assert (row.slots["side"] == "both") == (category.hands == 2)
        assert row.cost_usd is None and row.model == "slot-grammar"
    assert sum(row.status == "accepted" for row in rows) >= 0.95 * len(rows)


def test_grammar_keeps_what_the_base_prompt_says() -> None:
    said = "a left hand with dark skin lifts a red rubber bottle, seen from above, dim light"
    for row in detail(with_prompts(WRAP, (f"{said}, blue wall", "bottle")), per_base_prompt=1):
        assert row.prompt == (
            "a left hand with dark skin wraps around a red rubber bottle, "
            "seen from above, dim light, blue wall"
        )


def test_few_prompts_of_one_base_prompt_cover_many_words() -> None:
    rows = detail(with_prompts(WRAP, ("a hand holds a can", "can")), per_base_prompt=8)
    values = {name: {row.slots[name] for row in rows if row.slots} for name in ("colour", "side")}
    assert len(values["colour"]) == 8 and len(values["side"]) == 2


def test_same_seed_gives_same_rows_and_another_seed_others() -> None:
    assert detail(WRAP) == detail(WRAP)
    other = detail(WRAP, seed=1)
    assert not {row.prompt_id for row in other} & {row.prompt_id for row in detail(WRAP)}
    assert [row.prompt for row in other] != [row.prompt for row in detail(WRAP)]


def test_edited_base_prompt_changes_its_own_rows_only() -> None:
    prompts = [(p.text, p.object) for p in WRAP.base_prompts]
    before = detail(WRAP)
    after = detail(with_prompts(WRAP, ("a runner drinks from a bottle", "bottle"), *prompts[1:]))
    assert before[4:] == after[4:]
    assert not {row.prompt_id for row in before[:4]} & {row.prompt_id for row in after[:4]}


def test_more_prompts_per_base_prompt_keep_the_first() -> None:
    few = {row.prompt_id: row.prompt for row in detail(WRAP, per_base_prompt=2)}
    many = {row.prompt_id: row.prompt for row in detail(WRAP, per_base_prompt=6)}
    assert few.items() <= many.items()


def test_near_duplicate_names_the_prompt_it_repeats() -> None:
    fixed = (
        "a left hand with dark skin holds a red metal can, seen from above, dim light, blue wall"
    )
    rows = detail(with_prompts(WRAP, (fixed, "can")), per_base_prompt=3)
    assert [row.status for row in rows] == ["accepted", "rejected", "rejected"]
    assert {row.reason for row in rows[1:]} == {f"near_duplicate: of {rows[0].prompt_id}"}


def test_no_two_accepted_prompts_are_alike() -> None:
    rows = detail(WRAP, per_base_prompt=40)
    accepted = Counter(row.prompt for row in rows if row.status == "accepted")
    assert max(accepted.values()) == 1


def test_base_prompt_that_contradicts_itself_is_rejected_with_the_words() -> None:
    rows = detail(with_prompts(WRAP, ("a red and blue can", "can")), per_base_prompt=1)
    assert rows[0].status == "rejected"
    assert rows[0].reason == "contradictory_base: the base prompt names colour red and blue"


def test_base_prompt_with_too_many_hands_is_rejected() -> None:
    rows = detail(with_prompts(WRAP, ("two hands hold a can", "can")), per_base_prompt=1)
    assert rows[0].status == "rejected" and (rows[0].reason or "").startswith("hand_count")


def test_object_outside_the_tiny_world_is_rejected_there_and_taken_in_the_open() -> None:
    raw = {**WRAP.model_dump(mode="json"), "objects": ["hammer"]}
    raw["base_prompts"] = [{"text": "a carpenter takes a hammer", "object": "hammer"}]
    hammers = Category.model_validate(raw)
    tiny = detail(hammers, per_base_prompt=1)[0]
    assert tiny.status == "rejected" and "hammer" in (tiny.reason or "")
    open_row = detail(hammers, per_base_prompt=1, vocabulary="open")[0]
    assert open_row.status == "accepted"
    assert "hammer" in open_row.prompt and hammers.contact_surface in open_row.prompt


def test_too_long_prompt_is_rejected_with_its_length() -> None:
    row = detail(WRAP, max_words=8, per_base_prompt=1)[0]
    assert row.status == "rejected"
    assert row.reason == f"too_many_words: {len(row.prompt.split())}, at most 8"


def test_table_has_the_same_columns_whatever_the_rows_hold() -> None:
    table = detailed_prompts_table(detail(WRAP))
    assert table.schema == detailed_prompts_table([]).schema == DETAILED_PROMPT_ROWS.schema
    assert table.height == 4 * len(WRAP.base_prompts)
    assert set(table["colour"].unique()) > {"red", "white"}


def test_package_loads_without_the_client_or_templates() -> None:
    code = (
        "import sys; import hoi_assets.ppv.detailed_prompts, hoi_assets.taxonomy;"
        "print([m for m in ('openai', 'jinja2', 'torch', 'dagster') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a light bulb on a shelf", {}),
        ("a hand with light skin, soft light", {"skin_tone": ("light",), "light": ("soft light",)}),
        ("a ball before a blue wall", {"background": ("blue wall",)}),
        ("both hands on a Red can", {"colour": ("red",), "side": ("both",)}),
        ("a left hand and a right hand", {"side": ("both",)}),
        ("seen from the side", {"view": ("side",)}),
    ],
)
def test_words_of_a_plain_text_are_read_by_slot(text: str, named: dict[str, Any]) -> None:
    assert words_named(text) == named


def open_slots(**change: Any) -> OpenSlots:
    said = {
        "side": "right",
        "skin_tone": "brown",
        "grip": "wraps its fingers around",
        "contact": "palm against the label",
        "colour": "amber",
        "material": "glass",
        "object": "water bottle",
        "view": "from slightly above",
        "light": "morning light",
        "background": "a kitchen shelf",
        "avoid": None,
    }
    return OpenSlots.model_validate({**said, **change})


BOTTLE = BasePrompt(text="a thirsty walker grabs a bottle", object="bottle")


def reason(slots: PromptSlots, base: BasePrompt = BOTTLE, category: Category = WRAP) -> str | None:
    return prompt_problem(slots, slots.caption(), base, category, TAXONOMY, max_words=60)


def test_open_slots_in_order_pass_and_make_a_caption() -> None:
    assert reason(open_slots()) is None
    assert open_slots().caption() == (
        "a right hand with brown skin wraps its fingers around an amber glass water bottle, "
        "palm against the label, from slightly above, morning light, a kitchen shelf"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"object": "mug"}, "wrong_object"),
        ({"object": "bottle and mug"}, "wrong_object"),
        ({"colour": "red and white"}, "two_colours"),
        ({"colour": "red", "object": "blue bottle"}, "two_colours"),
        ({"contact": "the left thumb on the cap"}, "left_and_right"),
        ({"side": "both"}, "hand_count"),
        ({"contact": "the other hand under the base"}, "hand_count"),
        ({"grip": "pinches"}, "other_grip"),
        ({"grip": "carries {object} on hooked fingers"}, "other_grip"),
        ({"grip": "presses"}, "other_grip"),
        ({"contact": "very " * 55}, "too_many_words"),
    ],
)
def test_contradictory_or_off_category_slots_are_rejected_with_the_code(
    change: dict[str, Any], code: str
) -> None:
    assert (reason(open_slots(**change)) or "").split(":")[0] == code


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("a red bottle", "colour red"),
        ("a plastic bottle", "material plastic"),
        ("a left hand takes a bottle", "side left"),
        ("a hand with dark skin and a bottle", "skin_tone dark"),
    ],
)
def test_slots_must_keep_to_the_base_prompt(text: str, slot: str) -> None:
    found = reason(open_slots(), BasePrompt(text=text, object="bottle"))
    assert found and found.startswith(f"departs_from_base: the base prompt says {slot}")


def test_plural_and_compound_objects_count_as_the_object() -> None:
    assert reason(open_slots(object="tall bottles")) is None


def test_grip_of_another_category_is_fine_where_that_category_is_requested() -> None:
    hook = TAXONOMY.category("hook")
    bag = BasePrompt(text="a shopper with a bag", object="bag")
    slots = open_slots(object="bag", grip="carries {object} on hooked fingers")
    assert reason(slots, bag, hook) is None


def test_tiny_grip_must_be_the_categorys_own() -> None:
    tiny = TinySlots.model_validate({
        "side": "left", "skin_tone": None, "grip": "takes", "contact": None, "colour": "red",
        "material": None, "object": "bottle", "view": None, "light": None, "background": None,
    })  # fmt: skip
    assert (reason(tiny) or "").startswith("other_grip: 'takes'")


@pytest.mark.parametrize(
    "change",
    [{"grip": "  "}, {"colour": ""}, {"view": "\x00"}, {"grip": "x" * 200}, {"side": "middle"},
     {"mood": "calm"}],
)  # fmt: skip
def test_empty_unprintable_or_unknown_slots_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        open_slots(**change)


def test_prompts_that_differ_in_colour_and_view_are_not_alike() -> None:
    one = open_slots().spoken()
    alike = open_slots(grip="wraps all its fingers around").spoken()
    other = open_slots(colour="green", view="from the left").spoken()
    accepted = NearDuplicatePrompts(0.9)
    accepted.add("first", one)
    assert accepted.find(alike) == "first"
    assert accepted.find(other) is None
    assert similarity(one, one) == 1.0
    assert similarity(one, other) == similarity(other, one) < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "http://127.0.0.1:1/v1"}, "prompter.model"),
        ({"endpoint": "http://127.0.0.1:1/v1", "model": "m", "budget_usd": 1.0}, "price"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_call(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HoiError, match=message):
        make_prompter(Prompter(**options))
