"""The taxonomy: what the committed folder promises, and how mistakes in one are told."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import MAX_WORDS, caption
from hoi_assets.grammar.vocabulary import OBJECTS
from hoi_assets.ppv.slots import words_named
from hoi_assets.publishing.context import read_taxonomy
from hoi_assets.settings import ROOT
from hoi_assets.taxonomy import TaxonomyError, category_keys, load_taxonomy, normalise

COMMITTED = ROOT / "data" / "taxonomy"
TAXONOMY = load_taxonomy(COMMITTED)
CATEGORIES = TAXONOMY.categories
HOOK = Path("categories/hook.yaml")

Edit = Callable[[str], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A taxonomy of two categories that is in order."""
    target = tmp_path / "taxonomy"
    (target / "categories").mkdir(parents=True)
    for name in ("categories/hook.yaml", "categories/worn.yaml", "general_prompts.yaml"):
        shutil.copy(COMMITTED / name, target / name)
    load_taxonomy(target)
    return target


def edit(folder: Path, name: str | Path, change: Edit) -> str:
    """Change one file; fails where nothing changed."""
    path = folder / name
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    path.write_text(after, encoding="utf-8")
    return after


def line_of(text: str, part: str) -> int:
    """Line, from 1, of the last place of `part`."""
    return text[: text.rindex(part)].count("\n") + 1


def mistakes(folder: Path) -> tuple[str, ...]:
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(folder)
    return caught.value.mistakes


def replaced(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new, 1)


def test_committed_taxonomy_has_a_dozen_categories_with_ten_prompts_each() -> None:
    assert len(CATEGORIES) == 12
    for category in CATEGORIES.values():
        assert len(category.base_prompts) >= 10
        assert len(category.evaluation_prompts) >= 4
        assert {p.object for p in category.base_prompts} == set(category.objects)


def test_every_object_of_the_committed_taxonomy_can_be_drawn() -> None:
    prompts = TAXONOMY.prompt_rows()
    assert {row["object"] for row in prompts} <= set(OBJECTS)
    for category in CATEGORIES.values():
        assert {*category.objects, *category.held_out_objects} <= set(OBJECTS)


def test_every_committed_category_has_a_grasp() -> None:
    assert set(TAXONOMY.grasps) == set(CATEGORIES)
    for key, category in CATEGORIES.items():
        assert TAXONOMY.grasps[key].hands == category.hands


def test_longest_caption_of_every_category_fits_the_tiny_world() -> None:
    for category in CATEGORIES.values():
        words = {
            "side": "both" if category.hands == 2 else "right",
            "skin_tone": "brown",
            "grip": category.grip_phrase,
            "colour": "orange",
            "material": "plastic",
            "object": category.objects[0],
            "view": "side",
            "light": "soft light",
            "background": "grey wall",
        }
        assert len(caption(words).split()) <= MAX_WORDS


def test_committed_prompts_do_not_contradict_themselves_or_the_number_of_hands() -> None:
    for category in CATEGORIES.values():
        for prompt in (*category.base_prompts, *category.evaluation_prompts):
            named = words_named(prompt.text)
            assert all(len(words) == 1 for words in named.values()), prompt.text
            sides = named.get("side", ())
            assert ("both" in sides) <= (category.hands == 2), prompt.text


def test_evaluation_prompts_name_object_and_colour_so_that_truth_can_be_read() -> None:
    for category in CATEGORIES.values():
        for prompt in category.evaluation_prompts:
            named = words_named(prompt.text)
            assert "colour" in named and "side" in named
            assert prompt.object in normalise(prompt.text).split()


def test_telling_words_mark_their_own_grip_phrase() -> None:
    for category in CATEGORIES.values():
        phrase = normalise(category.grip_phrase)
        assert any(re.search(rf"\b{word}", phrase) for word in category.telling_words), category.key


def test_identifiers_are_rare_words_that_no_prompt_uses() -> None:
    said = {word for row in TAXONOMY.prompt_rows() for word in normalise(row["text"]).split()}
    assert not said & {category.identifier for category in CATEGORIES.values()}
    assert len(said) < 600


def test_keys_are_read_without_opening_the_files(folder: Path) -> None:
    (folder / HOOK).write_text("not: [yaml", encoding="utf-8")
    assert category_keys(folder) == ("hook", "worn")
    assert category_keys(COMMITTED) == tuple(CATEGORIES)


def test_loading_takes_a_fraction_of_a_second() -> None:
    start = time.process_time()
    load_taxonomy(COMMITTED)
    assert time.process_time() - start < 0.25


def test_prompt_id_follows_category_and_text_only(folder: Path) -> None:
    before = {p.text: p.prompt_id for p in load_taxonomy(folder).category("hook").base_prompts}
    edit(folder, HOOK, replaced("a heavy bag", "a light bag"))
    after = {p.text: p.prompt_id for p in load_taxonomy(folder).category("hook").base_prompts}
    assert len(set(before.items()) - set(after.items())) == 1
    assert len(set(before.values())) == len(before)


def test_digest_changes_with_any_edit(folder: Path) -> None:
    before = load_taxonomy(folder)
    edit(folder, HOOK, replaced("gravity does the rest", "gravity helps"))
    after = load_taxonomy(folder)
    assert before.category("hook").digest != after.category("hook").digest
    assert before.category("worn").digest == after.category("worn").digest
    assert before.digest != after.digest


def test_new_category_is_one_new_file(folder: Path) -> None:
    text = (folder / HOOK).read_text(encoding="utf-8")
    text = text.replace("key: hook", "key: claw").replace("hkzu", "clwz")
    text = text.replace("carries {object} on hooked fingers", "claws at").replace(' "', ' "new ')
    text = re.sub(r'text: "', 'text: "claw: ', text)
    (folder / "categories/claw.yaml").write_text(text, encoding="utf-8")
    taxonomy = load_taxonomy(folder)
    assert list(taxonomy.categories) == ["claw", "hook", "worn"]
    assert taxonomy.grasps == {}


def test_unknown_category_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(HoiError, match=r"no category 'hok'[\s\S]*hook, worn"):
        load_taxonomy(folder).category("hok")


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        (replaced("hands: 1", "hands: 3"), "hands: 3", "hands: "),
        (replaced("thumb:", "tumb:"), "tumb:", "tumb: is not a known field"),
        (replaced("definition:", "# definition:"), "key:", "definition: is missing"),
        (replaced("name: Hook", "name: ''"), "name:", "name: is empty"),
        (replaced("key: hook", "key: hok"), "key:", "must equal the file name, 'hook'"),
        (replaced("key: hook", "key: a,b"), "key:", "no commas"),
        (replaced("hkzu", "hk zu"), "identifier:", "identifier: 'hk zu' must be"),
        (replaced("held_out_objects: [bucket]", "held_out_objects: [bag, bucket]"),
         "held_out", "held_out_objects.0: 'bag' is listed twice, in objects"),
        (replaced("[bag, stick]", "[bag, stick, Bag]"), "objects: [bag", "'Bag' is listed twice"),
        (replaced("[bag, stick]", "[]"), "objects: []", "objects: is empty"),
        (replaced('a heavy bag", object: bag', 'a heavy bag", object: mug'),
         "a heavy bag", "base_prompts.0.object: 'mug' is not one of objects: bag, stick"),
        (replaced('a heavy bag", object: bag', 'a heavy bag", object: bucket'),
         "a heavy bag", "base_prompts.0.object: 'bucket' is not one of objects"),
        (replaced('hooked fingers, grey wall", object: bag', 'grey wall", object: egg'),
         'grey wall"', "evaluation_prompts.1.object: 'egg'"),
        (replaced("  - {text: \"a purple bag hangs from a right hand\"",
                  "  - {text: \"A  shopper walks home, with a HEAVY bag\""),
         "HEAVY", "repeats base_prompts at hook.yaml:14"),
        (replaced("a right hand carries a red plastic bag on hooked fingers",
                  "a plastic bag swings from the left hand"),
         "swings from the left hand", "repeats base_prompts"),
        (lambda text: re.sub("object: bucket}", "object: bag}", text).replace(
            "[bag, stick]", "[bag, stick]"),
         "evaluation_prompts:", "none is about one of held_out_objects"),
        (replaced("name: Hook", "name: Hook\nname: Claw"), "name: Claw", "name: is given twice"),
        (replaced("on hooked fingers", "on {hooked} fingers"), "grip_phrase:", "braces"),
        (replaced("hands: 1", "hands: [1"), None, "is not valid YAML"),
    ],
)  # fmt: skip
def test_mistake_names_file_line_and_field(
    folder: Path, change: Edit, at: str | None, message: str
) -> None:
    text = edit(folder, HOOK, change)
    found = [m for m in mistakes(folder) if message in m]
    assert len(found) == 1, mistakes(folder)
    place = str(folder / HOOK) + (f":{line_of(text, at)}:" if at else ":")
    assert found[0].startswith(place), found[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("# nothing\n", "is empty"), ("- a\n- b\n", "field: value")],
)
def test_empty_category_is_named(folder: Path, content: str, message: str) -> None:
    (folder / HOOK).write_text(content, encoding="utf-8")
    assert any(f"{folder / HOOK}:1: file: " in m and message in m for m in mistakes(folder))


def test_category_without_prompts_is_named(folder: Path) -> None:
    cut = re.compile(r"base_prompts:.*?(?=evaluation_prompts)", re.DOTALL)
    text = edit(folder, HOOK, lambda text: cut.sub("base_prompts: []\n", text))
    line = line_of(text, "base_prompts: []")
    assert mistakes(folder) == (f"{folder / HOOK}:{line}: base_prompts: is empty",)


def test_folder_without_categories_is_named(tmp_path: Path) -> None:
    for reader in (load_taxonomy, category_keys):
        with pytest.raises(TaxonomyError, match=r"categories"):
            reader(tmp_path)


def test_binary_file_is_named(folder: Path) -> None:
    (folder / HOOK).write_bytes(b"\xff\xfe\x00key")
    assert "not UTF-8" in mistakes(folder)[0]


def test_two_files_of_one_key_are_named(folder: Path) -> None:
    shutil.copy(folder / HOOK, folder / "categories" / "hook.yml")
    with pytest.raises(TaxonomyError, match=r"hook\.yml:1: key: hook\.yaml beside it has the same"):
        category_keys(folder)
    assert "hook.yml:1: key" in mistakes(folder)[0]


def test_overlong_key_is_named(folder: Path) -> None:
    (folder / HOOK).rename(folder / "categories" / f"{'h' * 240}.yaml")
    with pytest.raises(TaxonomyError, match=r"key: the file name 'h{80}' must be up to 64"):
        category_keys(folder)


def test_folder_called_like_a_category_is_named(folder: Path) -> None:
    (folder / "categories" / "claw.yaml").mkdir()
    path = folder / "categories" / "claw.yaml"
    assert mistakes(folder) == (f"{path}:1: file: is a folder, not a file",)


def test_prompts_that_differ_in_how_letters_are_composed_are_one(folder: Path) -> None:
    edit(folder, HOOK, replaced("a heavy bag", "a h\u00e9avy bag"))
    twin = 'text: "A shopper walks home with a he\u0301avy bag."'
    edit(folder, "categories/worn.yaml", lambda text: re.sub('text: "[^"]*"', twin, text, count=1))
    assert "repeats base_prompts at hook.yaml" in "".join(mistakes(folder))


@pytest.mark.parametrize("sign", ["\u200b", "\u00ad", "\u202e"])
def test_prompts_that_differ_in_what_cannot_be_seen_are_one(folder: Path, sign: str) -> None:
    twin = f'text: "a shopper walks home with a hea{sign}vy bag"'
    edit(folder, "categories/worn.yaml", lambda text: re.sub('text: "[^"]*"', twin, text, count=1))
    assert "repeats base_prompts at hook.yaml" in "".join(mistakes(folder))


@pytest.mark.parametrize("escape", ["\\t", "\\r", "\\x1b", "\\L", "\\N", "\\0", "\\uFFFF"])
def test_control_character_in_a_prompt_is_named_with_its_line(folder: Path, escape: str) -> None:
    text = edit(folder, HOOK, replaced("a heavy bag", f"a {escape}heavy bag"))
    (found,) = mistakes(folder)
    assert found.startswith(f"{folder / HOOK}:{line_of(text, 'heavy bag')}:")
    assert "control_character" in found or "holds the control character" in found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("general_prompts.yml", "is not read: its name must be general_prompts.yaml"),
        ("grasps.YAML", "is not read: its name must be grasps.yaml"),
        ("categories/claw.YAML", "key: ends in .YAML: rename it to claw.yaml"),
    ],
)
def test_file_that_would_be_passed_over_is_named(folder: Path, name: str, said: str) -> None:
    shutil.copy(folder / HOOK, folder / name)
    assert f"{folder / name}:1: " in "".join(mistakes(folder)) and said in "".join(mistakes(folder))


def test_links_that_lead_nowhere_and_hidden_files_crash_no_reader(folder: Path) -> None:
    categories = folder / "categories"
    (categories / "claw.yaml").symlink_to(categories / "claw.yaml")
    (categories / "gone.yaml").symlink_to(folder / "nowhere")
    (categories / ".#hook.yaml").symlink_to("editor@host:1")
    assert category_keys(folder) == ("claw", "gone", "hook", "worn")
    with pytest.raises(TaxonomyError) as caught:
        read_taxonomy(folder)
    assert caught.value.mistakes == (
        f"{categories / 'claw.yaml'}:1: file: is missing",
        f"{categories / 'gone.yaml'}:1: file: is missing",
    )


def test_file_name_that_is_no_key_is_named(folder: Path) -> None:
    (folder / HOOK).rename(folder / "categories" / "hook,two.yaml")
    with pytest.raises(TaxonomyError, match=r"hook,two\.yaml:1: key"):
        category_keys(folder)
    assert "hook,two" in mistakes(folder)[0]


def test_missing_general_prompts_are_named(folder: Path) -> None:
    (folder / "general_prompts.yaml").unlink()
    assert mistakes(folder) == (f"{folder / 'general_prompts.yaml'}:1: file: is missing",)


def test_all_mistakes_of_all_files_come_at_once(folder: Path) -> None:
    edit(folder, HOOK, lambda text: text.replace("hands: 1", "hands: 3").replace("thumb", "tumb"))
    edit(folder, "categories/worn.yaml", replaced("[ring, watch]", "[ring, watch, ring]"))
    edit(folder, "general_prompts.yaml", replaced("object: ball", "objekt: ball"))
    found = "\n".join(mistakes(folder))
    for part in ("hands:", "tumb:", "thumb: is missing", "objects.2", "objekt", "object: is mis"):
        assert part in found
    assert found.count("hook.yaml") == 3


def test_two_categories_may_not_share_what_tells_them_apart(folder: Path) -> None:
    edit(folder, "categories/worn.yaml", replaced("wrnz", "hkzu"))
    text = edit(folder, "categories/worn.yaml", replaced(
        "grip_phrase: wears", "grip_phrase: carries {object} on Hooked fingers"))  # fmt: skip
    found = mistakes(folder)
    assert any(f":{line_of(text, 'identifier')}: identifier" in m and "hook" in m for m in found)
    assert any("grip_phrase" in m and "that of hook" in m for m in found)


def test_same_prompt_in_two_categories_is_a_mistake(folder: Path) -> None:
    edit(folder, "categories/worn.yaml", replaced("a bride shows her ring", "Four fingers hook a thin stick."))  # fmt: skip  # noqa: E501
    found = mistakes(folder)
    assert (
        len(found) == 1 and "worn.yaml" in found[0] and "repeats base_prompts at hook" in found[0]
    )
