"""Promises of BLIP-VQA."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_assets.detailscribe.components import build_component
from hoi_assets.detailscribe.flat_form import from_flat
from hoi_assets.engines.blip_vqa import (
    BlipVqaModel,
    blip_vqa_scores,
    flatten_pairs,
    load_blip_vqa,
    noun_phrases,
)
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import (
    BLIP_VISION,
    SIDE,
    WORDS,
    picture,
    private_copy,
    tokenizer,
)

PHRASES = [("a red ball",), ("right hand", "blue box", "a wall"), (), ("a green box", "hand")]
# In place of a word that no phrase here has.
UNUSED = "photo"


def make_blip_vqa(folder: Path, yes: str = "yes") -> Path:
    """A small BLIP for questions with random weights, one of whose words is yes."""
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessorPil

    torch.manual_seed(7)
    words = tokenizer()
    core = words.backend_tokenizer.to_str().replace(f'"{UNUSED}"', f'"{yes}"')
    words._tokenizer = type(words.backend_tokenizer).from_str(core)
    text = {
        "vocab_size": len(words),
        "hidden_size": 24,
        "encoder_hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 12,
        "initializer_range": 0.2,
        "bos_token_id": words.cls_token_id,
        "sep_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }
    model = BlipForQuestionAnswering(BlipConfig(vision_config=BLIP_VISION, text_config=text))
    # The library starts positions and class token at zero; trained ones are not.
    for name, weight in model.named_parameters():
        if "embedding" in name:
            torch.nn.init.normal_(weight, std=0.4)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> BlipVqaModel:
    return load_blip_vqa(make_blip_vqa(tmp_path_factory.mktemp("blip_vqa")))


def p_yes(blip: BlipVqaModel, image: object, phrase: str) -> float:
    """P(yes) by the library's own generation, one question alone and without padding."""
    words = blip.tokenizer(f"{phrase}?", return_tensors="pt")
    made = blip.model.generate(
        input_ids=words["input_ids"],
        attention_mask=words["attention_mask"],
        pixel_values=blip.image_processor([image], return_tensors="pt")["pixel_values"],
        max_new_tokens=1,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return float(made.logits[0].softmax(-1)[0, blip.yes])


def test_score_is_the_product_of_yes_over_the_noun_phrases(blip: BlipVqaModel) -> None:
    images = [picture(n, (40, 30)) for n in range(4)]
    scores = blip_vqa_scores(blip, images, PHRASES)
    for value, image, phrases in zip(scores, images, PHRASES, strict=True):
        if phrases:
            wanted = np.prod([p_yes(blip, image, phrase) for phrase in phrases])
            np.testing.assert_allclose(value, wanted, rtol=1e-4)
    assert len(set(scores[[0, 1, 3]])) == 3


def test_picture_without_phrases_has_no_score(blip: BlipVqaModel) -> None:
    assert np.isnan(blip_vqa_scores(blip, [picture(0)], [()])).all()
    assert blip_vqa_scores(blip, [], []).shape == (0,)


def test_score_does_not_depend_on_what_else_is_scored(blip: BlipVqaModel) -> None:
    images, phrases = [picture(n) for n in range(8)], PHRASES * 2
    whole = blip_vqa_scores(blip, images, phrases, batch_size=4)
    part = blip_vqa_scores(blip, [images[5], images[3]], [phrases[5], phrases[3]], [5, 3], 4)
    assert np.array_equal(part, whole[[5, 3]])


def test_neighbours_questions_fill_the_batches() -> None:
    texts = [("a", "b", "c")] * 16
    _, places, _ = flatten_pairs(texts)
    assert [sum(place % 16 == n for place in places) for n in range(16)] == [3] * 16


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="has no word 'yes'"):
        load_blip_vqa(make_blip_vqa(tmp_path / "a", yes="oui"))
    folder = make_blip_vqa(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    with pytest.raises(HoiError, match=r"model\.safetensors is missing"):
        load_blip_vqa(folder)


def test_digest_stays_by_saving_and_changes_with_a_weight(blip: BlipVqaModel) -> None:
    changed = private_copy(blip)
    assert changed.digest == blip.digest
    with torch.no_grad():
        changed.model.vision_model.embeddings.class_embedding.add_(1)
    assert private_copy(changed).digest != blip.digest
    assert UNUSED in WORDS


@pytest.mark.parametrize(
    ("flat", "phrases"),
    [
        ("(a hand holds a spoon) + (the spoon stirs in a bowl)", ("a hand", "a spoon", "a bowl")),
        ("(the spoon is on a tray) + (a hand holds a red spoon)",
         ("a tray", "a hand", "a red spoon")),
        ("(A hand holds a cup) + (a hand lifts the cup)", ("A hand", "a cup")),
        ("(it holds them) + (they touch each other)", ()),
        ("(its paw holds a brush)", ("paw", "a brush")),
        ("(a cup is on the left)", ("a cup",)),
        ("(one cup is on another cup)", ("one cup", "another cup")),
        ("(a purple sky)", ("a purple sky",)),
    ],
)  # fmt: skip
def test_noun_phrases_are_subjects_and_objects_once_without_pronouns(
    flat: str, phrases: tuple[str, ...]
) -> None:
    assert noun_phrases(from_flat(flat)) == phrases


def test_what_is_only_said_to_be_there_is_asked_for() -> None:
    assert noun_phrases([build_component("a blue mug", "is shown")]) == ("a blue mug",)
    assert noun_phrases([]) == ()
