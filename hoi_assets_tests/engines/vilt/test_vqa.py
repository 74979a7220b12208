"""Promises of yes and no to questions about pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_assets.engines.pair_inputs import text_inputs
from hoi_assets.engines.vilt.verifier import load_verifier, pixel_values
from hoi_assets.engines.vilt.vqa import answers, load_vqa
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import make_vilt, picture, private_copy

QUESTIONS = ("red ball on wall?", "right hand holds a blue box?", "a green ball?")
PUBLIC = ("net", "no", "2", "white", "yes", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt(tmp_path_factory.mktemp("vqa"), ("yes", "no"))


def _pairs(count: int):
    return [picture(n) for n in range(count)], [QUESTIONS[n % 3] for n in range(count)]


@pytest.mark.parametrize("labels", [("yes", "no"), PUBLIC])
def test_answer_is_that_of_plain_transformers_between_yes_and_no(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    vqa = load_vqa(make_vilt(tmp_path / "vqa", labels))
    images, questions = _pairs(5)
    with torch.no_grad():
        plain = vqa.model(
            **text_inputs(vqa, questions),
            pixel_values=pixel_values(vqa, images),
            pixel_mask=torch.ones(5, 32, 32, dtype=torch.long),
        ).logits
    two = plain[:, [labels.index("yes"), labels.index("no")]].softmax(dim=-1)
    np.testing.assert_allclose(answers(vqa, images, questions), two[:, 0].numpy(), atol=1e-5)


def test_answer_does_not_depend_on_what_else_is_asked(folder: Path) -> None:
    vqa = load_vqa(folder)
    images, questions = _pairs(11)
    whole = answers(vqa, images, questions, batch_size=4)
    some = [9, 2, 6]
    part = answers(
        vqa, [images[n] for n in some], [questions[n] for n in some], slots=some, batch_size=4
    )
    assert part == [whole[n] for n in some]


def test_answers_neither_use_nor_move_the_random_generator(folder: Path) -> None:
    vqa = load_vqa(folder)
    images, questions = _pairs(4)
    torch.manual_seed(1)
    first = answers(vqa, images, questions)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert answers(vqa, images, questions) == first
    assert torch.equal(state, torch.get_rng_state())


def test_answer_depends_on_picture_and_on_question(folder: Path) -> None:
    vqa = load_vqa(folder)
    images = [picture(0), picture(1), picture(0)]
    found = answers(vqa, images, [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]])
    assert len({round(p, 4) for p in found}) == 3
    assert all(0 <= p <= 1 for p in found)


def test_nothing_to_ask_is_answered_by_nothing(folder: Path) -> None:
    assert answers(load_vqa(folder), [], []) == []


def test_long_question_is_cut(folder: Path) -> None:
    vqa = load_vqa(folder)
    long = "red " * vqa.max_text_tokens + "ball?"
    other = answers(vqa, [picture(0)] * 2, [long, long + " blue box?"])
    assert other[0] == pytest.approx(other[1], abs=1e-6)


def test_digest_names_the_weights(folder: Path, tmp_path: Path) -> None:
    vqa = load_vqa(folder)
    vqa.model.save_pretrained(tmp_path)
    vqa.tokenizer.save_pretrained(tmp_path)
    vqa.image_processor.save_pretrained(tmp_path)
    again = private_copy(load_vqa(tmp_path))
    assert again.digest == vqa.digest
    with torch.no_grad():
        again.model.classifier[-1].bias.add_(1)
    assert type(again)(again.model, again.tokenizer, again.image_processor).digest != vqa.digest


def test_model_that_cannot_say_no_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match=r"no label 'no' in config.json's label2id\n  name a ViLT"):
        load_vqa(make_vilt(tmp_path / "vqa", ("yes", "maybe")))


def test_verifier_is_no_vqa_model_and_says_so(vilt_folder: Path) -> None:
    load_verifier(vilt_folder)
    with pytest.raises(HoiError, match="no label 'yes'"):
        load_vqa(vilt_folder)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="nowhere"):
        load_vqa(tmp_path / "nowhere")
