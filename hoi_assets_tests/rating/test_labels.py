"""Labels that people gave reach the verifier's training pairs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.ppv.manual_labels import labelled_by_people
from hoi_assets.ppv.verifier_pairs import labelled_pairs
from hoi_assets.rating.labels import write_labels
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import read_study
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.rating.conftest import picture, study_of


def say(folder: Path, answers: Mapping[tuple[str, int, str], int | str]) -> None:
    """Votes by (rater, number of the item, question)."""
    make_links(folder, {rater for rater, _, _ in answers})
    items = read_study(folder).items
    with (folder / "votes.jsonl").open("w", encoding="utf-8") as file:
        for (rater, number, question), answer in answers.items():
            vote = {
                "at": "2026-01-02T03:04:05+00:00",
                "rater": rater,
                "item": items[number].item,
                "repeat": False,
                "question": question,
                "answer": answer,
                "on_left": "a",
                "place": 1,
            }
            file.write(json.dumps(vote) + "\n")


def test_labels_of_people_train_the_verifier(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "verify", prompts=2)
    say(
        folder,
        {
            ("anna", 0, "fidelity"): 1,
            ("anna", 0, "alignment"): 0,
            ("anna", 1, "fidelity"): 1,
            ("anna", 1, "alignment"): 1,
            ("ben", 1, "fidelity"): 1,
        },
    )
    out = tmp_path / "labels"
    write_labels(folder, out)
    shutil.rmtree(folder / "images")  # what is written needs the study no more
    settings = load_settings()
    settings = settings.model_copy(
        update={"verifier": settings.verifier.model_copy(update={"labels_folder": str(out)})}
    )
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    pairs = labelled_pairs(Store(tmp_path / "home"), settings, taxonomy, print)
    items = read_study(folder).items
    wanted = {
        (items[0].pictures[0].image, items[0].prompt, True, False),
        (items[1].pictures[0].image, items[1].prompt, True, True),
    }
    assert set(pairs.select("pixels", "prompt", "fidelity", "alignment").rows()) == wanted


def test_majority_labels_and_an_even_split_does_not(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "verify", prompts=2)
    votes = {(rater, 0, "fidelity"): int(rater != "cleo") for rater in ("anna", "ben", "cleo")}
    votes |= {(rater, 0, "alignment"): 0 for rater in ("anna", "ben", "cleo")}
    votes |= {("anna", 1, "fidelity"): 1, ("ben", 1, "fidelity"): 0, ("anna", 1, "alignment"): 1}
    say(folder, votes)
    out = tmp_path / "labels"
    assert write_labels(folder, out).select("fidelity", "alignment").rows() == [(1, 0)]


def test_faults_that_people_named_teach_where_the_hand_is_wrong(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "verify", prompts=2)
    votes: dict[tuple[str, int, str], int | str] = {}
    for rater, named in (
        ("anna", "extra_finger@200,600"),
        ("ben", "melted_hand@900,900"),
        ("cleo", "extra_finger@300,800"),
    ):
        votes |= {(rater, 0, "fidelity"): 0, (rater, 0, "alignment"): 1, (rater, 0, "fault"): named}
        # Most find the second picture whole: what one saw in it is no label.
        votes |= {(rater, 1, "fidelity"): int(rater != "anna"), (rater, 1, "alignment"): 1}
    votes["anna", 1, "fault"] = "floating@1,1"
    say(folder, votes)
    table = write_labels(folder, tmp_path / "labels").sort("fidelity")
    named = table.select("fidelity", "defect", "defect_x", "defect_y").rows()
    assert named == [(0, "extra_finger", 0.25, 0.7), (1, None, None, None)]
    store = Store(tmp_path / "home")
    rows = labelled_by_people(store, tmp_path / "labels" / "labels.csv", 0)
    faulty, whole = sorted(rows, key=lambda row: row["fidelity"])
    assert faulty["defects"] == ["extra_finger"] and whole["defects"] == []
    assert whole["defect_map"] is None
    drawn = store.images.open(faulty["defect_map"]).convert("L").point(lambda v: 255 * (v > 0))
    left, top, right, bottom = drawn.getbbox()
    width, height = drawn.size
    assert abs((left + right) / 2 / width - 0.25) < 0.1
    assert abs((top + bottom) / 2 / height - 0.7) < 0.1


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("1,1,extra_finger,0.5,0.5", "a picture with fidelity 1 has a defect"),
        ("0,1,extra_finger,0.5,", "must both be from 0 to 1"),
        ("0,1,extra_finger,1.5,0.5", "must both be from 0 to 1"),
        ("0,1,extra_finger,nan,0.5", "must both be from 0 to 1"),
        ("0,1,extra_finger,left,0.5", "labels.csv"),
    ],
)
def test_a_fault_that_cannot_be_is_named_with_its_line(
    fault: str, problem: str, tmp_path: Path
) -> None:
    picture(1).save(tmp_path / "a.png")
    path = tmp_path / "labels.csv"
    head = "file,prompt,fidelity,alignment,defect,defect_x,defect_y"
    path.write_text(f"{head}\na.png,a hand,{fault}\n", encoding="utf-8")
    with pytest.raises(HoiError, match=problem):
        list(labelled_by_people(Store(tmp_path / "home"), path, 0))


def test_labels_need_a_verify_study_with_votes(tmp_path: Path, pairwise: Path) -> None:
    with pytest.raises(HoiError, match="pairwise study"):
        write_labels(pairwise, tmp_path / "labels")
    folder = study_of(tmp_path / "more", "verify", prompts=1)
    with pytest.raises(HoiError, match="both labels"):
        write_labels(folder, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()
