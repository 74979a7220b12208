"""Trainings go on after a kill with the bits of an unbroken one."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT
from hoi_assets.tinyworld.weights.loop import fit, learning_rate
from hoi_assets.tinyworld.weights.recipes import RECIPES, Recipe

SHORT = Recipe("line", "none", steps=6, batch_size=4, learning_rate=0.1, warmup_steps=2)


class Killed(Exception):
    """Stands for the end of the process."""


def _line(recipe: Recipe, folder: Path, die_at: int | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout(0.5))
    calls = 0

    def loss(generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise Killed
        x = torch.randn(recipe.batch_size, 3, generator=generator)
        return (model(x) - x.sum(dim=1, keepdim=True)).square().mean()

    fit(model, loss, recipe, folder, log=lambda line: None, checkpoint_s=0)
    return model[0].weight.detach().clone()


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("extra", [(), (("muon", 1.0),)])
def test_killed_training_ends_with_the_same_bits(
    ema_decay: float | None, extra: tuple[tuple[str, float], ...], tmp_path: Path
) -> None:
    recipe = replace(SHORT, ema_decay=ema_decay, extra=extra)
    unbroken = _line(recipe, tmp_path / "unbroken")
    with pytest.raises(Killed):
        _line(recipe, tmp_path / "killed", die_at=4)
    assert torch.equal(_line(recipe, tmp_path / "killed"), unbroken)


def test_muon_takes_the_matrices_and_adamw_the_rest(tmp_path: Path) -> None:
    plain, muon = (
        _line(replace(SHORT, extra=extra), tmp_path / str(len(extra)))
        for extra in ((), (("muon", 1.0),))
    )
    state = torch.load(tmp_path / "1" / "state.pt", weights_only=True)
    assert [len(one["state"]) for one in state["optimizers"]] == [1, 1]
    assert not torch.equal(plain, muon)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = _line(SHORT, tmp_path)
    assert torch.equal(_line(SHORT, tmp_path, die_at=1), first)


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _line(SHORT, tmp_path)
    with pytest.raises(HoiError, match="checkpoint of recipe"):
        _line(replace(SHORT, seed=1), tmp_path)


def test_outer_stop_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)

    def loss(generator: torch.Generator) -> torch.Tensor:
        time.sleep(0.01)
        return model(torch.ones(1, 1)).square().mean()

    done = fit(model, loss, SHORT, tmp_path, lambda line: None, max_minutes=0.0004)
    assert 0 < done.steps < done.planned
    assert fit(model, loss, SHORT, tmp_path, lambda line: None).steps == SHORT.steps


def test_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(HoiError, match="loss is nan"):
        fit(model, lambda g: model.weight.sum() * float("nan"), SHORT, tmp_path, lambda line: None)


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(SHORT, step) for step in range(SHORT.steps)]
    assert rates[0] < rates[1] == SHORT.learning_rate
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.2 * SHORT.learning_rate


STAGES = (
    *("vae", "decoder", "sdxl", "clip", "vilt", "image_reward", "examiner"),
    *("sd3", "vqa", "component_examiner", "vae16", "sdxl16"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_each_recipe_goes_on_after_a_kill_with_the_same_bits(
    name: str, fresh_weights: Path, shapes_world: Path, tmp_path: Path, monkeypatch
) -> None:
    from hoi_assets.tinyworld.weights import loop
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    views = {"through_vae": 2, "renoised": 2}
    extra = tuple((key, views.get(key, value)) for key, value in RECIPES[name].extra)
    recipe = replace(RECIPES[name], steps=2, warmup_steps=1, batch_size=2, extra=extra)
    recipes = {**RECIPES, name: recipe}

    def run(folder: str) -> Run:
        import shutil

        out = tmp_path / folder / "out"
        if not out.exists():
            shutil.copytree(fresh_weights, out)
            _cards(out, recipe)
        return Run(
            shapes_world,
            out,
            tmp_path / folder / "state",
            log=lambda line: None,
            checkpoint_s=0,
            recipes=recipes,
        )

    def weights(folder: str) -> bytes:
        parts = sorted((tmp_path / folder / "out").rglob("*.safetensors"))
        return b"".join(path.read_bytes() for path in parts)

    try:
        train([name], run("unbroken"))
        assert weights("unbroken") != weights_of(fresh_weights)
        if name == "sd3":
            shared = tmp_path / "unbroken/out/sd3/vae/diffusion_pytorch_model.safetensors"
            assert shared.resolve().parent.parent.name == "sdxl"
        save = loop._save

        def save_and_die(*arguments: object) -> None:
            save(*arguments)
            raise Killed

        monkeypatch.setattr(loop, "_save", save_and_die)
        with pytest.raises(Killed):
            train([name], run("killed"))
        monkeypatch.setattr(loop, "_save", save)
        train([name], run("killed"))
        assert weights("killed") == weights("unbroken")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_going_on_starts_from_the_stored_weights_and_the_card_says_so(
    fresh_weights: Path, shapes_world: Path, tmp_path: Path
) -> None:
    import shutil

    from hoi_assets.tinyworld.weights.card import read_card
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train

    extra = (("through_vae", 4), ("renoised", 4))
    still = replace(RECIPES["examiner"], steps=1, learning_rate=0.0, batch_size=4, extra=extra)

    def trained(folder: str, go_on: bool) -> bytes:
        out = tmp_path / folder
        shutil.copytree(fresh_weights, out)
        _cards(out, still)
        recipes = {**RECIPES, "examiner": still}
        state = tmp_path / f"{folder}-state"
        train(
            ["examiner"],
            Run(shapes_world, out, state, lambda line: None, recipes=recipes, go_on=go_on),
        )
        return safe_parameters(out / "examiner" / "model.safetensors")

    stored = safe_parameters(fresh_weights / "examiner" / "model.safetensors")
    assert trained("on", go_on=True) == stored
    assert trained("anew", go_on=False) != stored
    assert f"recipe {still.digest} after 7 steps" in read_card(tmp_path / "on" / "examiner").note
    assert "Went on" not in read_card(tmp_path / "anew" / "examiner").note


def test_a_claim_is_what_the_text_says_and_not_what_the_picture_shows(shapes_world: Path) -> None:
    from hoi_assets.tinyworld.weights.pairs import PairSampler
    from hoi_assets.tinyworld.weights.pictures import read_pictures

    pictures = read_pictures(shapes_world, "pretrain")
    pairs = PairSampler(pictures, lie_share=0.6, blank_share=0.2).sample(200, torch.Generator())
    for index, text, claim, lie in zip(
        pairs.chosen, pairs.texts, pairs.claims, pairs.lies, strict=True
    ):
        shown = pictures.rows[index]
        differs = {name for name in claim if claim[name] != shown[name]}
        if not text or lie is None:
            assert not differs
            continue
        assert claim["object"] in text and claim["colour"] in text
        if lie in ("wrong_object", "wrong_colour"):
            assert differs == {lie.removeprefix("wrong_")}
        if lie in ("wrong_side", "wrong_count"):
            assert differs == {"side"}


def safe_parameters(path: Path) -> bytes:
    """The learnt parameters of a model; running means of batches move without a step."""
    from safetensors.torch import load_file

    return b"".join(
        value.numpy().tobytes()
        for name, value in sorted(load_file(path).items())
        if "running" not in name and "num_batches" not in name
    )


def weights_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.safetensors")))


def _cards(out: Path, recipe: Recipe) -> None:
    """Cards for fresh weights, as earlier stages would have left them."""
    from hoi_assets.tinyworld.weights import vae16
    from hoi_assets.tinyworld.weights.card import Card, write_card

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae16.save(vae16.build_vae16(), out / "vae16")
    named = (("sdxl", "sdxl"), ("sdxl/vae", "vae"), ("vae16", "vae16"), ("examiner", "examiner"))
    for folder, name in named:
        card = Card(name, recipe.digest, "none", 0, 0, "", 0, 7, 7, 0, 0.0, "none", 0)
        write_card(out / folder, card)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from hoi_assets.tinyworld.weights.loop import fit
from hoi_assets_tests.tinyworld.weights.test_training import SHORT

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
calls = 0

def loss(generator):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return model(torch.randn(4, 3, generator=generator)).square().mean()

fit(model, loss, SHORT, Path(sys.argv[1]), checkpoint_s=0)
print(model.weight.detach().numpy().tobytes().hex())
"""


@pytest.mark.slow
def test_training_goes_on_after_sigkill(tmp_path: Path) -> None:
    def run(folder: str, die_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / folder), str(die_at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)

    unbroken = run("unbroken", 0)
    assert run("killed", 4).returncode == -signal.SIGKILL
    again = run("killed", 0)
    assert "resumes at step 3" in again.stdout
    assert again.stdout.splitlines()[-1] == unbroken.stdout.splitlines()[-1]


def test_judges_ask_for_the_generator_first(shapes_world: Path, tmp_path: Path) -> None:
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train

    with pytest.raises(HoiError, match="no tiny sdxl"):
        train(["clip"], Run(shapes_world, tmp_path, tmp_path / "state", log=lambda line: None))


def test_unknown_recipe_is_named(tmp_path: Path) -> None:
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train

    with pytest.raises(HoiError, match="no recipe called 'sdxxl'"):
        train(["sdxxl"], Run(tmp_path, tmp_path, tmp_path))


def test_world_that_is_missing_is_named(tmp_path: Path) -> None:
    from hoi_assets.tinyworld.weights.run import Run
    from hoi_assets.tinyworld.weights.train import train

    with pytest.raises(HoiError, match="no pool of scenes"):
        train(["vae"], Run(tmp_path / "none", tmp_path, tmp_path / "state"))
