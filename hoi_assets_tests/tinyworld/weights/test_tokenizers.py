import random
from pathlib import Path

import pytest

from hoi_assets.grammar.captions import caption
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SIDES,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.tinyworld.weights.tokenizers import (
    MAX_LENGTH,
    bert_tokenizer,
    clip_tokenizer,
    token_ids,
)
from hoi_assets.tinyworld.weights.words import caption_words, grip_phrases, prompt_words


def _captions(count: int) -> list[str]:
    rng = random.Random(0)
    grips = list(grip_phrases().values())
    return [
        caption(
            {
                "side": rng.choice(SIDES),
                "skin_tone": rng.choice(SKIN_TONES),
                "grip": rng.choice(grips),
                "colour": rng.choice(COLOURS),
                "material": rng.choice(MATERIALS),
                "object": rng.choice(OBJECTS),
                "view": rng.choice(VIEWS),
                "light": rng.choice(LIGHTS),
                "background": rng.choice(BACKGROUNDS),
            },
            seed,
        )
        for seed in range(count)
    ]


@pytest.mark.parametrize("make", [clip_tokenizer, bert_tokenizer])
def test_every_caption_word_is_one_token(make) -> None:
    tokenizer = make()
    for word in caption_words():
        assert len(tokenizer.tokenize(word)) == 1, word


@pytest.mark.parametrize("make", [clip_tokenizer, bert_tokenizer])
def test_captions_come_back_whole_and_fit(make) -> None:
    tokenizer = make()
    for text in _captions(300):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) <= MAX_LENGTH
        said = tokenizer.decode(ids, skip_special_tokens=True)
        assert said.replace(" ,", ",").strip() == text


def test_word_pieces_know_every_word_of_the_prompts() -> None:
    tokenizer = bert_tokenizer()
    words = [*caption_words(), *prompt_words(), "pwrx", "xylophone", "42"]
    ids = tokenizer(" ".join(words))["input_ids"]
    assert tokenizer.unk_token_id not in ids


def test_byte_pairs_spell_words_they_never_saw() -> None:
    tokenizer = clip_tokenizer()
    ids = tokenizer("a pwrx xylophone, 42 €")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a pwrx xylophone , 4 2 €"


def test_second_tokenizer_pads_with_byte_zero() -> None:
    ids, mask = token_ids(clip_tokenizer(pad_token="!"), ["a red ball"])
    assert ids.shape == (1, MAX_LENGTH)
    assert ids[0, -1] == 0 and mask[0, -1] == 0


@pytest.mark.parametrize("make", [clip_tokenizer, bert_tokenizer])
def test_saved_tokenizer_reads_alike(make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = make()
    tokenizer.save_pretrained(tmp_path)
    text = _captions(1)[0]
    assert AutoTokenizer.from_pretrained(tmp_path)(text) == tokenizer(text)
