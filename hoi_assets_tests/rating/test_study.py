"""Promises of a study: blinded, the same at every call, whole or absent."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.rating.study import (
    FAULTS,
    OTHER_FAULT,
    REPEAT_GAP,
    Question,
    read_study,
    showings,
    study_folder,
    study_folders,
    study_images,
)
from hoi_assets.rating.study_making import StudyImage, make_study
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.conftest import METHODS, PROMPTS, offers, picture, study_of


def test_order_is_a_raters_own_and_the_same_at_every_call(pairwise: Path) -> None:
    study = read_study(pairwise)
    anna, ben = showings(study, "anna"), showings(study, "ben")
    assert anna == showings(read_study(pairwise), "anna")
    assert [one.place for one in anna] == list(range(1, PROMPTS + 1))
    assert {one.item.item for one in anna} == {one.item.item for one in ben}
    assert [one.item.item for one in anna] != [one.item.item for one in ben]
    assert {one.on_left for one in anna} == {"a", "b"}


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    given = offers(tmp_path / "drawn")
    first = make_study(tmp_path / "first", "rating", given, seed=1)
    second = make_study(tmp_path / "second", "rating", given, seed=2)
    orders = [[one.item.item for one in showings(s, "anna")] for s in (first, second)]
    assert orders[0] != orders[1] and sorted(set(orders[0])) == sorted(set(orders[1]))


def test_repeats_come_late_with_sides_reversed(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "pairwise", prompts=40, repeat_share=0.2)
    shown = showings(read_study(folder), "anna")
    first = {one.item.item: one for one in shown if not one.repeat}
    again = [one for one in shown if one.repeat]
    assert 6 <= len(again) <= 8 and len({one.item.item for one in again}) == len(again)
    for one in again:
        before = first[one.item.item]
        assert one.place - before.place > REPEAT_GAP
        assert {one.on_left, before.on_left} == {"a", "b"}


def test_equal_pictures_are_judged_once_for_all_their_methods(tmp_path: Path) -> None:
    same, other = tmp_path / "same.png", tmp_path / "other.png"
    picture(1).save(same)
    picture(2).save(other)
    given = [StudyImage("p", "x", same), StudyImage("p", "y", same), StudyImage("p", "z", other)]
    rating = make_study(tmp_path / "rating", "rating", given)
    assert [item.pictures[0].methods for item in rating.items] == [("x", "y"), ("z",)]
    pairs = make_study(tmp_path / "pairs", "pairwise", given)
    (item,) = pairs.items
    assert sorted(shown.methods for shown in item.pictures) == [("x", "y"), ("z",)]
    assert [(pair.method_a, pair.method_b) for pair in pairs.equal] == [("x", "y")]


def test_pairs_and_prompts_can_be_limited(tmp_path: Path) -> None:
    given = offers(tmp_path / "drawn")
    third = [StudyImage(one.prompt, "third", one.image) for one in offers(tmp_path / "more")[::2]]
    study = make_study(
        tmp_path / "study", "pairwise", given + third, pairs=[METHODS], prompts=5, repeat_share=0
    )
    assert len(study.items) == 5
    again = make_study(
        tmp_path / "again", "pairwise", reversed(given + third), pairs=[METHODS], prompts=5
    )
    assert {item.prompt for item in again.items} == {item.prompt for item in study.items}


def test_what_cannot_be_shown_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    good, text = tmp_path / "good.png", tmp_path / "text.png"
    picture(1).save(good)
    text.write_text("no picture", encoding="utf-8")
    bad = [
        (StudyImage("p", "x", text), "not a readable picture"),
        (StudyImage("p", "x", tmp_path / "absent.png"), "not a readable picture"),
        (StudyImage("p", "x", "0" * 64), "is not in"),
        (StudyImage("  ", "x", good), "prompt is empty"),
        (StudyImage("word " * 10_000, "x", good), "50000 characters"),
        (StudyImage("a\x00b", "x", good), "control_character"),
        (StudyImage("p", "", good), "no name"),
    ]
    given = [offer for offer, _ in bad] + [StudyImage("p", "x", good)]
    study = make_study(tmp_path / "study", "rating", given, images=Store(tmp_path / "home").images)
    assert len(study.items) == 1
    assert [one.number for one in study.left_out] == list(range(1, len(bad) + 1))
    for one, (_, reason) in zip(study.left_out, bad, strict=True):
        assert reason in one.reason


def test_study_without_a_usable_picture_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="number 1: the prompt is empty"):
        make_study(tmp_path / "study", "rating", [StudyImage("", "x", "y")])
    with pytest.raises(HoiError, match="at least two methods"):
        make_study(tmp_path / "study", "pairwise", offers(tmp_path / "drawn")[::2])
    assert {path.name for path in tmp_path.iterdir()} == {"drawn", ".staging"}
    assert not list((tmp_path / ".staging").iterdir())


def test_two_pictures_of_one_method_are_no_pair(tmp_path: Path) -> None:
    given = offers(tmp_path / "drawn", prompts=2)
    twice = StudyImage(given[0].prompt, given[0].method, given[2].image)
    with pytest.raises(HoiError, match="two pictures by 'zephyr'"):
        make_study(tmp_path / "study", "pairwise", [*given, twice])


def test_a_study_never_changes(pairwise: Path, tmp_path: Path) -> None:
    given = offers(tmp_path / "drawn")
    before = (pairwise / "study.json").read_bytes()
    found = make_study(pairwise, "pairwise", given, seed=3, repeat_share=0)
    assert found == read_study(pairwise)
    with pytest.raises(HoiError, match="another study is at"):
        make_study(pairwise, "pairwise", given, seed=4, repeat_share=0)
    assert (pairwise / "study.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"drawn", "study", ".staging"}
    assert not list((tmp_path / ".staging").iterdir())


def test_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    given = offers(tmp_path / "drawn")
    with pytest.raises(HoiError, match="holds other things"):
        make_study(tmp_path / "drawn", "rating", given)
    assert len(list((tmp_path / "drawn").iterdir())) == len(given)


def test_pictures_come_from_the_store_by_id_and_outlive_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    image = store.images.put(picture(5))
    folder = tmp_path / "study"
    study = make_study(folder, "rating", [StudyImage("p", "x", image)], images=store.images)
    store.images.path(image).unlink()
    assert study_images(folder).open(study.items[0].pictures[0].image) is not None


def test_files_tell_nothing_of_the_method(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    path, about = tmp_path / "zephyr.png", PngInfo()
    about.add_text("method", "zephyr")
    picture(1).save(path, pnginfo=about)
    folder = tmp_path / "study"
    make_study(folder, "rating", [StudyImage("p", "zephyr", path)])
    (copy,) = (folder / "images").rglob("*.png")
    assert b"zephyr" not in copy.read_bytes() and "zephyr" not in str(copy.relative_to(folder))
    with Image.open(copy) as opened:
        assert opened.info == {}


def test_damaged_manifest_is_named(pairwise: Path) -> None:
    path = pairwise / "study.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"mode": "guess"}), encoding="utf-8")
    with pytest.raises(HoiError, match=r"study\.json: mode"):
        read_study(pairwise)
    path.write_bytes(b"\xff{")
    with pytest.raises(HoiError, match=r"study\.json"):
        read_study(pairwise)


def test_names_of_studies_stay_inside_the_home(tmp_path: Path) -> None:
    assert study_folders(tmp_path) == []
    folder = study_folder(tmp_path, "first")
    make_study(folder, "rating", offers(tmp_path / "drawn"))
    assert study_folders(tmp_path) == [folder]
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(HoiError, match="not a name"):
            study_folder(tmp_path, name)


def test_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="not a mode"):
        make_study(tmp_path / "study", "guess", offers(tmp_path / "drawn"))  # type: ignore[arg-type]


def test_own_questions_are_asked_except_of_verifiers(tmp_path: Path) -> None:
    given, asked = offers(tmp_path / "drawn"), [Question(key="grip", text="Is the grip right?")]
    study = make_study(tmp_path / "rating", "rating", given, questions=asked)
    assert [question.key for question in study.questions] == ["grip"]
    study = make_study(tmp_path / "verify", "verify", given, questions=asked)
    assert [question.key for question in study.questions] == ["fidelity", "fault", "alignment"]


def test_faults_are_those_that_the_verifiers_base_learns_and_another() -> None:
    from hoi_assets.tinyworld.scenes.vocabulary import TWIN_DEFECTS

    assert set(FAULTS) == {*TWIN_DEFECTS, OTHER_FAULT}


KILLED = """
import os, signal, sys
from pathlib import Path
from hoi_assets.rating import study_making
from hoi_assets.rating.study_making import StudyImage, make_study

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "copied":
    study_making._list_images = die
else:
    Path.rename = die
make_study(Path(sys.argv[1]), "rating", [StudyImage("p", "x", path) for path in sys.argv[3:]])
"""


@pytest.mark.parametrize("moment", ["copied", "written"])
def test_a_study_whose_making_was_killed_is_none_and_goes_with_the_next_command(
    moment: str, tmp_path: Path
) -> None:
    drawn = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(drawn):
        picture(number).save(path)
    folder = study_folder(tmp_path / "home", "first")
    command = [sys.executable, "-c", KILLED, str(folder), moment, *map(str, drawn)]
    for _ in range(2):
        assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
        # The second removes what the first left.
        assert len(list(folder.parent.glob(".staging/*.tmp"))) == 1
    assert study_folders(tmp_path / "home") == [] and not folder.exists()
    Store(tmp_path / "home")
    assert not list(folder.parent.rglob("*.tmp"))
    make_study(folder, "rating", [StudyImage("p", "x", drawn[0])])
    assert study_folders(tmp_path / "home") == [folder]
