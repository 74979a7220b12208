"""Promises of the verifier's scores, files and verdicts."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hoi_assets.engines import model_cache
from hoi_assets.engines.pair_inputs import text_inputs
from hoi_assets.engines.vilt.decision import BOTH, LOW_ALIGNMENT, LOW_FIDELITY, decide
from hoi_assets.engines.vilt.verifier import (
    HEADS,
    Thresholds,
    forward_pairs,
    load_verifier,
    pixel_values,
    save_verifier,
    score_key,
    score_pairs,
)
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import make_pretrained_vilt, make_vilt, picture

TEXTS = ["a red ball", "right hand holds a blue box", "a green ball on wall"]


def _pairs(count: int):
    return [picture(n) for n in range(count)], [TEXTS[n % len(TEXTS)] for n in range(count)]


def test_scores_equal_those_of_plain_transformers(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    images, texts = _pairs(5)
    pixels = pixel_values(verifier, images)
    with torch.no_grad():
        plain = verifier.model(
            **text_inputs(verifier, texts),
            pixel_values=pixels,
            pixel_mask=torch.ones(5, 32, 32, dtype=torch.long),
        ).logits
    np.testing.assert_allclose(forward_pairs(verifier, images, texts), plain.numpy(), atol=1e-5)


def test_scores_neither_use_nor_move_the_random_generator(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    images, texts = _pairs(4)
    torch.manual_seed(1)
    first = forward_pairs(verifier, images, texts)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = forward_pairs(verifier, images, texts)
    torch.manual_seed(1)
    assert np.array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_score_of_a_pair_does_not_depend_on_what_else_is_scored(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    images, texts = _pairs(11)
    whole = forward_pairs(verifier, images, texts, batch_size=4)
    some = [9, 2, 6]
    part = forward_pairs(
        verifier, [images[n] for n in some], [texts[n] for n in some], slots=some, batch_size=4
    )
    assert np.array_equal(part, whole[some])


def test_score_depends_on_picture_and_on_text(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    logits = forward_pairs(
        verifier, [picture(0), picture(1), picture(0)], [TEXTS[0], TEXTS[0], TEXTS[1]]
    )
    assert len({tuple(row) for row in logits.round(4)}) == 3


def test_picture_of_another_size_is_scored(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    assert forward_pairs(verifier, [picture(0, (90, 41))], TEXTS[:1]).shape == (1, 2)


def test_nothing_to_score_gives_an_empty_table(vilt_folder: Path) -> None:
    assert forward_pairs(load_verifier(vilt_folder), [], []).shape == (0, 2)


def test_saved_verifier_loads_with_equal_bits(vilt_folder: Path, tmp_path: Path) -> None:
    verifier = replace(
        load_verifier(vilt_folder),
        temperature=(1.7, 1 / 3),
        thresholds=Thresholds(0.61, 0.1 + 0.2, 0.8, True, 0.82, 0.4, 37, 90),
    )
    again = load_verifier(save_verifier(verifier, tmp_path / "saved"))
    images, texts = _pairs(3)
    assert again.digest == verifier.digest
    assert again.thresholds == verifier.thresholds
    assert np.array_equal(
        score_pairs(again, images, texts).probabilities,
        score_pairs(verifier, images, texts).probabilities,
    )


def test_digest_names_weights_temperature_and_thresholds(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    others = [
        replace(verifier, temperature=(1.0, 1.1)),
        replace(verifier, thresholds=Thresholds(0.5, 0.51)),
    ]
    assert len({verifier.digest, *(other.digest for other in others)}) == 3


def test_verifier_is_loaded_once_and_anew_when_its_files_change(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt")
    first = load_verifier(folder)
    assert load_verifier(folder) is first
    save_verifier(replace(first, temperature=(2.0, 2.0)), folder)
    assert load_verifier(folder).temperature == (2.0, 2.0)


def test_missing_weights_are_named_with_folder_and_remedy(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(HoiError, match=r"vilt: model.safetensors is missing\n  `hoi models fetch`"):
        load_verifier(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_pretrained_vilt_of_the_hub_gets_fresh_heads_from_the_seed(
    sharded: bool, tmp_path: Path
) -> None:
    folder = make_pretrained_vilt(tmp_path / "vilt", sharded)
    verifier = load_verifier(folder)
    assert verifier.fresh_heads
    assert tuple(verifier.model.config.id2label.values()) == HEADS
    stored = {}
    for path in folder.glob("pytorch_model*.bin"):
        stored |= torch.load(path, weights_only=True)
    body = {k: v for k, v in verifier.model.state_dict().items() if k.startswith("vilt.")}
    assert len(body) > 30
    assert all(torch.equal(value, stored[name]) for name, value in body.items())
    assert forward_pairs(verifier, [picture(0)], TEXTS[:1]).std() > 0
    model_cache.clear()
    again, other = load_verifier(folder), load_verifier(folder, head_seed=5)
    assert again.digest == verifier.digest != other.digest


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_instead_of_weights_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    folder = make_pretrained_vilt(tmp_path / "vilt")
    if zipped:
        torch.save({"weights": Path("x")}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(HoiError, match="tensors alone, and nothing else is unpickled\n") as refused:
        load_verifier(folder)
    assert "weights_only" not in str(refused.value)


def test_pretrained_vilt_converted_to_safetensors_is_the_same_verifier(tmp_path: Path) -> None:
    folder = make_pretrained_vilt(tmp_path / "vilt")
    first = load_verifier(folder)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(
        {k: v.clone() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "pytorch_model.bin").unlink()
    assert load_verifier(folder).digest == first.digest


def test_vilt_saved_with_heads_must_hold_them(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt")
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if "class" not in k}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(HoiError, match=r"classifier\.0\.bias is missing"):
        load_verifier(folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="nowhere"):
        load_verifier(tmp_path / "nowhere")


def test_weights_of_wrong_shape_are_named(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt")
    config = (folder / "config.json").read_text(encoding="utf-8")
    altered = config.replace('"intermediate_size": 64', '"intermediate_size": 48')
    (folder / "config.json").write_text(altered, encoding="utf-8")
    with pytest.raises(HoiError, match=r"vilt does not load .*dense.bias is .64,., wanted .48,."):
        load_verifier(folder)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(HoiError, match="vilt does not load"):
        load_verifier(folder)


def test_verifier_of_three_labels_is_refused(tmp_path: Path) -> None:
    folder = make_vilt(tmp_path / "vilt", ("fidelity", "alignment", "beauty"))
    with pytest.raises(HoiError, match="3 labels, wanted 2"):
        load_verifier(folder)


@pytest.mark.parametrize(
    ("p_fidelity", "p_alignment", "status", "reason"),
    [
        (0.7, 0.6, "accepted", None),
        (0.69, 0.6, "rejected", LOW_FIDELITY),
        (0.7, 0.59, "rejected", LOW_ALIGNMENT),
        (0.1, 0.1, "rejected", BOTH),
    ],
)
def test_verdict_names_what_was_too_low(
    p_fidelity: float, p_alignment: float, status: str, reason: str | None
) -> None:
    found = decide(p_fidelity, p_alignment, Thresholds(0.7, 0.6))
    assert (found.status, found.reason) == (status, reason)


def test_score_key_names_picture_prompt_and_verifier() -> None:
    keys = {score_key(*key) for key in ("abc", "xbc", "axc", "abx")}
    assert len(keys) == 4
    assert score_key("a", "b", "c") == score_key("a", "b", "c")
