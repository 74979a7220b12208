"""Promises of the examiner's reading."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_assets.engines.examiner import Examination, ExaminerModel, agrees, examine, load_examiner
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import (
    EXAMINER_LABELS,
    make_examiner,
    picture,
    private_copy,
)


def _says(examiner: ExaminerModel, **logits: float) -> None:
    """Make the examiner say the same of every picture."""
    head = examiner.model.classifier[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-4.0)
        for label, value in logits.items():
            head.bias[EXAMINER_LABELS.index(label.replace("__", ":"))] = value


def test_truth_is_the_likeliest_label_of_each_kind(tmp_path: Path) -> None:
    examiner = private_copy(load_examiner(make_examiner(tmp_path / "examiner")))
    _says(
        examiner,
        pose__tripod=-1.0,
        object__ball=2.0,
        object__box=3.0,
        colour__blue=1.0,
        side__both=0.5,
        defect__floating=0.1,
        defect__extra_finger=-0.1,
        clean=-2.0,
    )
    (truth,) = examine(examiner, [picture(0)])
    assert (truth.pose, truth.object, truth.colour, truth.side) == ("tripod", "box", "blue", "both")
    assert truth.defects == ("floating",)
    assert not truth.clean
    assert truth.probabilities["object:ball"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_truth_depends_on_the_picture_alone(examiner_folder: Path) -> None:
    examiner = load_examiner(examiner_folder)
    images = [picture(n) for n in range(5)]
    whole = examine(examiner, images, batch_size=2)
    assert examine(examiner, [images[3]], slots=[3], batch_size=2) == [whole[3]]
    assert len({truth.probabilities["clean"] for truth in whole}) == 5


TRUTH = Examination("hook", "bag", "red", "left", (), True, {})


def test_agreement_is_told_by_kind() -> None:
    slots = {"category": "hook", "object": "bag", "colour": "blue", "side": "left"}
    assert agrees(TRUTH, slots) == {
        "pose": True,
        "object": True,
        "colour": False,
        "side": True,
        "defect_free": True,
    }


def test_what_is_not_asked_for_is_not_answered() -> None:
    assert agrees(TRUTH, {"object": "bag", "side": None}) == {"object": True, "defect_free": True}


def test_examiner_without_a_kind_of_label_is_refused(tmp_path: Path) -> None:
    labels = tuple(label for label in EXAMINER_LABELS if not label.startswith("side:"))
    with pytest.raises(HoiError, match="no label 'side:'"):
        load_examiner(make_examiner(tmp_path / "examiner", labels))
