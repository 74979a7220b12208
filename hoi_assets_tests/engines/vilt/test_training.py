"""Promises of the verifier's training."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from hoi_assets.engines.vilt.training import (
    CHECKPOINT,
    LabelledPair,
    TrainedVerifier,
    labels_of,
    logits_of,
    train_verifier,
)
from hoi_assets.engines.vilt.verifier import VerifierModel, load_verifier
from hoi_assets.errors import HoiError
from hoi_assets.settings import Verifier
from hoi_assets.statistics import auc
from hoi_assets_tests.damage import damage

CONFIG = Verifier(train_steps=6, batch_size=8, learning_rate=3e-3, seed=3)


def _plain(colour: str, striped: bool) -> Image.Image:
    image = Image.new("RGB", (32, 32), colour)
    if striped:
        for x in range(0, 32, 4):
            image.paste("white", (x, 0, x + 2, 32))
    return image


def make_pairs(count: int, first: int = 0) -> list[LabelledPair]:
    """Fidelity is the absence of stripes; alignment is that the text names the colour."""
    pairs = []
    for number in range(first, first + count):
        colour = ("red", "blue")[number % 2]
        striped, lying = number // 2 % 2 == 1, number // 4 % 2 == 1
        said = {"red": "blue", "blue": "red"}[colour] if lying else colour
        pairs.append(
            LabelledPair(
                pair_id=f"pair-{number}",
                open=partial(_plain, colour, striped),
                text=f"a {said} ball",
                fidelity=not striped,
                alignment=not lying,
                category="hook" if number % 3 else "tripod",
                defects=("extra_finger",) if striped else (),
                lies=("wrong_colour",) if lying else (),
                groups={"shown_as": "vae" if number % 5 == 0 else "render"},
            )
        )
    return pairs


def _quiet(_: str) -> None:
    pass


def _train(folder: Path, work: Path, config: Verifier = CONFIG) -> TrainedVerifier:
    start = load_verifier(folder)
    return train_verifier(start, make_pairs(32), make_pairs(16, 100), config, work, _quiet)


def test_training_learns_both_heads(vilt_folder: Path, tmp_path: Path) -> None:
    config = Verifier(train_steps=60, batch_size=16, learning_rate=3e-3)
    done = _train(vilt_folder, tmp_path, config)
    test = make_pairs(16, 200)
    logits, labels = logits_of(done.verifier, test), labels_of(test)
    assert auc(labels[:, 0], logits[:, 0]).value == 1
    assert auc(labels[:, 1], logits[:, 1]).value == 1
    assert done.best_step > 0


def test_killed_training_goes_on_and_ends_bit_identical(
    vilt_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(vilt_folder, tmp_path / "whole")

    opened = 0
    pairs = make_pairs(32)

    def open_until_killed(pair: LabelledPair) -> Image.Image:
        nonlocal opened
        opened += 1
        if opened > 20:
            raise KeyboardInterrupt
        return pair.open()

    failing = [replace(pair, open=partial(open_until_killed, pair)) for pair in pairs]
    start, validation = load_verifier(vilt_folder), make_pairs(16, 100)
    work = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train_verifier(start, failing, validation, CONFIG, work, _quiet)
    at = torch.load(work / CHECKPOINT, weights_only=True)["step"]
    assert 0 < at < CONFIG.train_steps
    said: list[str] = []
    again = train_verifier(start, pairs, validation, CONFIG, work, said.append)
    assert f"resuming after step {at} of 6" in said[0]
    assert again.verifier.digest == whole.verifier.digest
    assert (again.log, again.best_step) == (whole.log, whole.best_step)


def test_damaged_checkpoint_is_not_trained_on(vilt_folder: Path, tmp_path: Path) -> None:
    whole = _train(vilt_folder, tmp_path)
    damage(tmp_path / CHECKPOINT)
    said: list[str] = []
    again = train_verifier(
        load_verifier(vilt_folder),
        make_pairs(32),
        make_pairs(16, 100),
        CONFIG,
        tmp_path,
        said.append,
    )
    assert not any("resuming" in line for line in said)
    assert again.verifier.digest == whole.verifier.digest


def test_training_is_repeatable_whatever_the_random_state(
    vilt_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = _train(vilt_folder, tmp_path / "a")
    torch.manual_seed(2)
    second = _train(vilt_folder, tmp_path / "b")
    other = _train(vilt_folder, tmp_path / "c", CONFIG.model_copy(update={"seed": 4}))
    assert first.verifier.digest == second.verifier.digest
    assert first.verifier.digest != other.verifier.digest


def test_checkpoint_of_another_training_is_not_used(vilt_folder: Path, tmp_path: Path) -> None:
    fresh = _train(vilt_folder, tmp_path / "fresh")
    _train(vilt_folder, tmp_path / "used", CONFIG.model_copy(update={"learning_rate": 1e-4}))
    again = _train(vilt_folder, tmp_path / "used")
    assert again.verifier.digest == fresh.verifier.digest


def test_model_that_training_started_from_is_unchanged(vilt_folder: Path, tmp_path: Path) -> None:
    start: VerifierModel = load_verifier(vilt_folder)
    before = {name: weight.clone() for name, weight in start.model.state_dict().items()}
    _train(vilt_folder, tmp_path)
    assert all(torch.equal(before[n], weight) for n, weight in start.model.state_dict().items())


def test_log_has_a_row_per_step_and_no_clock(vilt_folder: Path, tmp_path: Path) -> None:
    done = _train(vilt_folder, tmp_path)
    assert [row["step"] for row in done.log] == list(range(7))
    measured = [row["step"] for row in done.log if row["validation_loss"] is not None]
    assert measured == [0, 1, 2, 3, 4, 5, 6]
    best = min((row for row in done.log if row["validation_loss"]), key=_validation_loss)
    assert best["step"] == done.best_step
    assert not any("second" in name for name in done.log[0])


def _validation_loss(row: dict[str, float]) -> float:
    return row["validation_loss"]


def test_training_that_does_not_help_keeps_the_start(vilt_folder: Path, tmp_path: Path) -> None:
    start = load_verifier(vilt_folder)
    upside_down = [
        LabelledPair(p.pair_id, p.open, p.text, not p.fidelity, not p.alignment)
        for p in make_pairs(32)
    ]
    config = CONFIG.model_copy(update={"train_steps": 24})
    good = train_verifier(
        start, make_pairs(32), make_pairs(16, 100), config, tmp_path / "1", _quiet
    ).verifier
    done = train_verifier(good, upside_down, make_pairs(16, 100), config, tmp_path / "2", _quiet)
    assert done.best_step == 0
    assert done.verifier.digest == good.digest


def test_head_with_only_good_pairs_is_refused(vilt_folder: Path, tmp_path: Path) -> None:
    faithful = [pair for pair in make_pairs(32) if pair.fidelity]
    with pytest.raises(HoiError, match="training pairs: 16 of 16 have fidelity"):
        train_verifier(
            load_verifier(vilt_folder), faithful, make_pairs(8), CONFIG, tmp_path, _quiet
        )


def test_diverged_training_is_said(vilt_folder: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(HoiError, match="diverged"):
        _train(vilt_folder, tmp_path, config)
