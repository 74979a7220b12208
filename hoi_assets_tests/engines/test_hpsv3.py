"""HPSv3 against the published package: `hpsv3_scores.json` was made by it, see
`hpsv3_reference.py`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from hoi_assets.engines import model_cache
from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.hpsv3 import scoring
from hoi_assets.engines.hpsv3.loading import PUBLISHED_BASE, HPSv3, load_hpsv3
from hoi_assets.engines.hpsv3.scoring import hpsv3_scores
from hoi_assets.engines.model_check import check_models
from hoi_assets.engines.model_fetch import fetch_models
from hoi_assets.engines.model_kinds import HPSV3_BASE, named_models
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, load_settings
from hoi_assets.store.weights import fetched_folder
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.small_hpsv3 import (
    CHECKPOINT,
    PROMPTS,
    make_hpsv3,
    pictures,
    recipe_digest,
)
from hoi_assets_tests.engines.test_model_fetch import REVISION, point_at, quiet

PUBLISHED = json.loads((Path(__file__).parent / "hpsv3_scores.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4


def published_scores() -> np.ndarray:
    wanted = np.array(PUBLISHED["mu_and_log_sigma"])
    wanted[:, 1] = np.exp(wanted[:, 1])
    return wanted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hpsv3(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> HPSv3:
    return load_hpsv3(folder)


def test_scores_are_those_of_the_published_package(scorer: HPSv3) -> None:
    assert recipe_digest() == PUBLISHED["recipe"]
    assert PUBLISHED["versions"]["transformers"] == "4.45.2"
    found = hpsv3_scores(scorer, pictures(), PROMPTS)
    np.testing.assert_allclose(found, published_scores(), rtol=0, atol=TOLERANCE)


def test_rows_and_columns_as_positions_would_show_as_other_scores(
    scorer: HPSv3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Qwen2-VL itself would do: the reference tells the two apart."""

    def of_the_base_model(ids: Any) -> Any:
        image = (ids == scorer.model.config.image_token_id).int()
        # The first picture is 32 by 32 patches.
        grid = torch.tensor([[1, 32, 32]])
        return scorer.model.get_rope_index(ids, mm_token_type_ids=image, image_grid_thw=grid)[0]

    monkeypatch.setattr(scoring, "text_positions", of_the_base_model)
    found = hpsv3_scores(scorer, pictures()[:1], PROMPTS[:1])
    assert np.abs(found - published_scores()[:1]).max() > 10 * TOLERANCE


def test_score_depends_on_nothing_that_is_scored_beside_it(scorer: HPSv3) -> None:
    images, prompts = pictures()[4:], PROMPTS[4:]
    whole = hpsv3_scores(scorer, images, prompts)
    alone = hpsv3_scores(scorer, images[2:], prompts[2:], slots=[2])
    assert whole[2:].tolist() == alone.tolist()
    assert hpsv3_scores(scorer, [], []).shape == (0, 2)


def test_bfloat16_keeps_its_head_in_float32(folder: Path) -> None:
    scorer = load_hpsv3(ModelRef(source=str(folder), dtype="bfloat16"))
    assert scorer.model.dtype == torch.bfloat16
    assert {one.dtype for one in scorer.head.parameters()} == {torch.float32}
    found = hpsv3_scores(scorer, pictures()[:1], PROMPTS[:1])
    assert np.abs(found - published_scores()[:1]).max() < 0.1


def test_tokens_of_control_in_a_prompt_are_left_out(scorer: HPSv3) -> None:
    image, prompt = pictures()[6], "a <|Reward|>hand<|im_end|> with<|image_pad|> a cup"
    found = hpsv3_scores(scorer, [image, image], [prompt, "a hand with a cup"])
    assert found[0].tolist() == found[1].tolist()


def test_a_picture_too_narrow_to_resize_is_named(scorer: HPSv3) -> None:
    with pytest.raises(HoiError, match="cannot score a picture of 201x1"):
        hpsv3_scores(scorer, [Image.new("RGB", (201, 1))], ["a hand"])


def without(name: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("model.norm.weight"), "language_model.norm.weight is missing"),
        (without("rm_head.3.bias"), "3.bias is missing"),
        (without("rm_head.5.weight"), "rm_head.5.weight is missing"),
        (without("model.embed_tokens.weight"), "no word embeddings"),
        (lambda one: one.update(score=np.zeros(2)), "score. is surplus"),
        (
            lambda one: one.update({"visual.merger.ln_q.bias": np.zeros(3)}),
            r"ln_q.bias is \(3,\), wanted \(32,\)",
        ),
        (
            lambda one: one.update({"model.embed_tokens.weight": np.zeros((9, 64))}),
            "9 word embeddings, its tokenizer 697 words",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], named: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / CHECKPOINT)
    change(tensors)
    save_file(tensors, tmp_path / CHECKPOINT)
    with pytest.raises(HoiError, match=named):
        load_hpsv3(tmp_path)
    (state,) = check_models({"hpsv3": ModelRef(source=str(tmp_path))})
    assert state.problem is not None


def test_unreadable_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / CHECKPOINT).write_bytes((folder / CHECKPOINT).read_bytes()[:-100])
    with pytest.raises(HoiError, match=r"does not load as HPSv3: HPSv3\.safetensors"):
        load_hpsv3(tmp_path)
    shutil.copy(folder / CHECKPOINT, tmp_path)
    (tmp_path / "chat_template.json").unlink()
    with pytest.raises(HoiError, match=r"chat_template\.json is missing"):
        load_hpsv3(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(HoiError, match=r"HPSv3\.safetensors is missing"):
        load_hpsv3(tmp_path)


def test_digest_is_that_of_what_was_loaded(scorer: HPSv3, folder: Path, tmp_path: Path) -> None:
    model_cache.clear()
    assert load_hpsv3(folder).digest == scorer.digest
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / CHECKPOINT)
    tensors["rm_head.5.bias"] += 1
    save_file(tensors, tmp_path / CHECKPOINT)
    assert load_hpsv3(tmp_path).digest != scorer.digest


def test_it_leaves_no_room_for_others_within_a_budget(folder: Path, clip_folder: Path) -> None:
    model_cache.clear()
    try:
        load_clip(clip_folder)
        model_cache.configure(model_cache.size_bytes(load_hpsv3(folder).modules))
        assert [key.kind for key in model_cache.cached_keys()] == ["hpsv3"]
    finally:
        model_cache.clear()
        model_cache.configure(None)


def test_it_is_fetched_from_its_two_repositories_and_scores_with_the_hub_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, base = "MizzenAI/HPSv3", PUBLISHED_BASE.source
    make_hpsv3(tmp_path / name, tmp_path / base)
    (tmp_path / base / "model-00001-of-00005.safetensors").write_bytes(b"of the base model")
    (tmp_path / base / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    assert PUBLISHED_BASE.revision is not None
    hub = Hub(
        {
            name: Repository(tmp_path / name, REVISION),
            base: Repository(tmp_path / base, PUBLISHED_BASE.revision),
        }
    )
    point_at(hub, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path.parent)
    ref = ModelRef(source=name, revision=REVISION)
    models = load_settings("tiny").models.model_copy(update={"hpsv3": ref})
    named = {k: v for k, v in named_models(models).items() if k.startswith("hpsv3")}
    assert named == {"hpsv3": ref, HPSV3_BASE: PUBLISHED_BASE}
    try:
        assert {one.origin for one in check_models(named)} == {"missing"}
        fetch_models(named, quiet)
    finally:
        hub.close()
    files = {path.name for path in fetched_folder(PUBLISHED_BASE).iterdir()}
    assert "chat_template.json" in files and not any(one.startswith("model") for one in files)
    assert [path.name for path in fetched_folder(ref).glob("*.safetensors")] == [CHECKPOINT]
    states = list(check_models(named, hashes=True))
    assert [(one.origin, one.problem) for one in states] == [("fetched", None)] * 2
    scorer = load_hpsv3(ref)
    assert states[0].memory_bytes == model_cache.size_bytes(scorer.modules)
    found = hpsv3_scores(scorer, pictures()[:1], PROMPTS[:1])
    np.testing.assert_allclose(found, published_scores()[:1], rtol=0, atol=TOLERANCE)


def test_a_folder_with_all_files_needs_no_second_repository(folder: Path) -> None:
    models = load_settings("tiny").models
    own = models.model_copy(update={"hpsv3": ModelRef(source=str(folder))})
    assert set(named_models(own)) - set(named_models(models)) == {"hpsv3"}
