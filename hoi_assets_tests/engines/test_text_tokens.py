"""Counts of tokens say what the encoders read: a text is cut where its end changes nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hoi_assets.engines.blip_vqa import blip_text_reader, load_blip_vqa
from hoi_assets.engines.clip_score import CLIP_PREFIX, clip_text_reader, load_clip
from hoi_assets.engines.diffusion_pipeline import PromptedPipeline
from hoi_assets.engines.image_reward import image_reward_text_reader, load_image_reward
from hoi_assets.engines.pair_inputs import PairModel, text_inputs
from hoi_assets.engines.sd3.loading import T5_TOKENS, load_sd3, sd3_text_reader
from hoi_assets.engines.sd3.loading import TEXT_ENCODERS as SD3_ENCODERS
from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS, load_sdxl, sdxl_text_reader
from hoi_assets.engines.text_tokens import (
    TextReader,
    TokenCount,
    cached_token_counts,
    encoder_values,
)
from hoi_assets.engines.vilt.verifier import load_verifier, vilt_text_reader
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_judges import MAX_TOKENS
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.test_blip_vqa import make_blip_vqa

# The small pipelines read 32 letters, two of them special.
FITS, TOO_LONG = "a" * 30, "a" * 31


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture(scope="module", params=[False, True], ids=["without T5", "with T5"])
def sd3_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd3")
    make_sd3(folder, with_t5=request.param)
    return folder


def without_weights(folder: Path, copy: Path) -> ModelRef:
    """The model's folder without its weights: nothing but counting works with it."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    return ModelRef(source=str(copy))


def reads_the_end(loaded: PromptedPipeline, text: str) -> bool:
    """Whether another last letter gives another embedding."""
    (one, _), (other, _) = loaded.encode(text), loaded.encode(f"{text[:-1]}b")
    return not torch.equal(one, other)


def test_sdxl_reads_to_the_end_what_is_not_counted_as_cut(
    store: Store, sdxl_folder: Path, tmp_path: Path
) -> None:
    reader = sdxl_text_reader(without_weights(sdxl_folder, tmp_path / "copy"))
    counts = cached_token_counts(store, reader, [FITS, TOO_LONG])
    assert counts == {
        FITS: dict.fromkeys(TEXT_ENCODERS, TokenCount(32, 32)),
        TOO_LONG: dict.fromkeys(TEXT_ENCODERS, TokenCount(33, 32)),
    }
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    assert reads_the_end(loaded, FITS) and not reads_the_end(loaded, TOO_LONG)
    assert encoder_values(counts[FITS], TEXT_ENCODERS)["prompt_cut"] is False
    assert encoder_values(counts[TOO_LONG], TEXT_ENCODERS) == {
        "text_encoder_tokens": 33,
        "text_encoder_2_tokens": 33,
        "cut_by": "text_encoder, text_encoder_2",
        "prompt_cut": True,
    }


def test_sd3_reads_to_the_end_what_one_of_its_encoders_does_not_cut(
    store: Store, sd3_folder: Path, tmp_path: Path
) -> None:
    reader = sd3_text_reader(without_weights(sd3_folder, tmp_path / "copy"))
    loaded = load_sd3(ModelRef(source=str(sd3_folder)))
    with_t5 = loaded.pipe.text_encoder_3 is not None
    texts = [FITS, TOO_LONG, "a" * T5_TOKENS]
    for text, counts in cached_token_counts(store, reader, texts).items():
        values = encoder_values(counts, SD3_ENCODERS)
        assert values["text_encoder_3_tokens"] == (len(text) + 2 if with_t5 else None)
        assert reads_the_end(loaded, text) != values["prompt_cut"]
        by_clip = text != FITS
        assert (values["cut_by"] or "").startswith("text_encoder, text_encoder_2") == by_clip
    long = encoder_values(cached_token_counts(store, reader, texts)[TOO_LONG], SD3_ENCODERS)
    assert long["prompt_cut"] is not with_t5


def readers(folders: dict[str, Path]) -> dict[str, TextReader]:
    refs = {name: ModelRef(source=str(folder)) for name, folder in folders.items()}
    return {
        "clip": clip_text_reader(refs["clip"]),
        "image_reward": image_reward_text_reader(refs["image_reward"]),
        "vilt": vilt_text_reader(refs["vilt"], "v1"),
        "blip_vqa": blip_text_reader(refs["blip_vqa"]),
    }


def test_judges_are_counted_without_their_weights_and_as_they_read(
    store: Store,
    tmp_path: Path,
    clip_folder: Path,
    image_reward_folder: Path,
    vilt_folder: Path,
) -> None:
    blip_folder = make_blip_vqa(tmp_path / "blip")
    folders = {
        "clip": clip_folder,
        "image_reward": image_reward_folder,
        "vilt": vilt_folder,
        "blip_vqa": blip_folder,
    }
    bare = {name: without_weights(own, tmp_path / name).folder for name, own in folders.items()}
    texts = [" ".join(["red"] * words) for words in range(1, 15)]
    cut = {
        name: [own[name].cut for own in cached_token_counts(store, reader, texts).values()]
        for name, reader in readers({k: v for k, v in bare.items() if v is not None}).items()
    }

    def ignores_the_end(model: PairModel, prefix: str = "") -> list[bool]:
        """Whether another last word is the same to the model."""
        read, others = (
            text_inputs(model, [f"{prefix}{text[:-3]}{word}" for text in texts])["input_ids"]
            for word in ("red", "blue")
        )
        return [torch.equal(one, other) for one, other in zip(read, others, strict=True)]

    assert cut["clip"] == ignores_the_end(load_clip(clip_folder), CLIP_PREFIX)
    assert cut["image_reward"] == ignores_the_end(load_image_reward(image_reward_folder))
    assert cut["vilt"] == ignores_the_end(load_verifier(vilt_folder))
    limit = load_blip_vqa(blip_folder).max_text_tokens
    assert cut["blip_vqa"] == [words + 3 > limit for words in range(1, 15)]  # and "?"
    # The prefix "A photo depicts" takes three of CLIP's tokens.
    assert cut["clip"].index(True) == cut["vilt"].index(True) - 3 == MAX_TOKENS - 2 - 3


def test_text_is_counted_once_and_again_for_another_model(
    store: Store, sdxl_folder: Path, tmp_path: Path
) -> None:
    reader = sdxl_text_reader(ModelRef(source=str(sdxl_folder)))
    first = cached_token_counts(store, reader, [FITS])

    def fail() -> list[object]:
        raise AssertionError("tokenizers are read again")

    known = replace(reader, load=fail)
    assert cached_token_counts(Store(store.home), known, [FITS, FITS]) == first
    assert cached_token_counts(store, known, []) == {}
    for asked, texts in ((known, [TOO_LONG]), (replace(known, digest="another"), [FITS])):
        with pytest.raises(AssertionError, match="read again"):
            cached_token_counts(store, asked, texts)


def test_missing_tokenizer_is_named(store: Store, sdxl_folder: Path, tmp_path: Path) -> None:
    ref = without_weights(sdxl_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "tokenizer_2")
    with pytest.raises(HoiError, match=r"missing: .*/tokenizer_2/tokenizer\.json"):
        cached_token_counts(store, sdxl_text_reader(ref), [FITS])
    (tmp_path / "copy" / "model_index.json").unlink()
    with pytest.raises(HoiError, match=r"model_index\.json cannot be loaded"):
        cached_token_counts(store, sdxl_text_reader(ref), [FITS])


REVISION = "0" * 40
OF_THE_HUB = f"""
import json
from hoi_assets.engines.clip_score import clip_text_reader
from hoi_assets.engines.sd3.loading import sd3_text_reader
from hoi_assets.engines.sdxl.loading import sdxl_text_reader
from hoi_assets.engines.vilt.verifier import vilt_text_reader
from hoi_assets.settings import ModelRef

def ref(name):
    return ModelRef(source=f"maker/{{name}}", revision="{REVISION}")

readers = [
    *(sdxl_text_reader(ref("sdxl")), sd3_text_reader(ref("sd3"))),
    *(clip_text_reader(ref("clip")), vilt_text_reader(ref("vilt"), "v1")),
]
found = {{}}
for reader in readers:
    found[reader.kind] = {{one.name: one.limit for one in reader.load()}}
print(json.dumps(found))
"""


def test_hub_repository_is_counted_by_its_tokenizers_alone(
    tmp_path: Path, sdxl_folder: Path, clip_folder: Path, vilt_folder: Path
) -> None:
    make_sd3(tmp_path / "sd3", with_t5=True)
    folders = {
        "sdxl": sdxl_folder,
        "sd3": tmp_path / "sd3",
        "clip": clip_folder,
        "vilt": vilt_folder,
    }
    for name, folder in folders.items():
        without_weights(folder, tmp_path / f"hub/models--maker--{name}/snapshots/{REVISION}")
    done = subprocess.run(
        [sys.executable, "-c", OF_THE_HUB],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "sdxl": dict.fromkeys(TEXT_ENCODERS, 32),
        "sd3": {**dict.fromkeys(SD3_ENCODERS[:2], 32), SD3_ENCODERS[2]: T5_TOKENS},
        "clip": {"clip": MAX_TOKENS},
        "vilt": {"vilt": MAX_TOKENS},
    }
