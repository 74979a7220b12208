import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors import safe_open
from safetensors.torch import load_file

from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.denoising import min_snr_weights
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.lora import finetune_lora, lora_key, train_dreambooth_lora
from hoi_assets.engines.sdxl.sampling import (
    LORA_FILE,
    generate_images,
    lora_digest,
    make_image_spec,
    make_scheduler,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import FineTuning, LoraTraining, Sampling
from hoi_assets_tests.damage import flip_bit
from hoi_assets_tests.engines.sdxl import train_once
from hoi_assets_tests.engines.small_sdxl import picture

INSTANCE = [(picture(c), f"a photo of pwrx {c} ball") for c in ("red", "blue")]
PRIOR = [(picture("black"), "a black ball")]


def config(**changes: Any) -> LoraTraining:
    return LoraTraining(
        **{
            "rank": 2,
            "lora_alpha": 4,
            "max_train_steps": 4,
            "train_batch_size": 2,
            "learning_rate": 1e-2,
            "checkpointing_steps": 2,
            **changes,
        }
    )


def tuning(**changes: Any) -> FineTuning:
    return FineTuning(
        **{
            "rank": 2,
            "max_train_steps": 6,
            "train_batch_size": 2,
            "learning_rate": 1e-2,
            "checkpointing_steps": 2,
            "validation_steps": 2,
            "min_train_rows": 1,
            **changes,
        }
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def base_weights(loaded: LoadedSDXL) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loaded.pipe.unet.state_dict().items()}


def test_plain_diffusers_draws_the_identical_picture(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    folder = tmp_path / "lora"
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path / "work", folder)
    row = make_image_spec(sampling, INSTANCE[0][1], 5, 0, Lora(str(folder), lora_digest(folder)))
    ours = next(generate_images(loaded, [row], 1)).image
    pipe = StableDiffusionXLPipeline.from_pretrained(loaded.ref.source)
    pipe.scheduler = make_scheduler(loaded, row.scheduler)

    def plain() -> bytes:
        return (
            pipe(
                row.prompt,
                num_inference_steps=row.steps,
                guidance_scale=row.guidance_scale,
                generator=[torch.Generator().manual_seed(5)],
            )
            .images[0]
            .tobytes()
        )

    without = plain()
    pipe.load_lora_weights(folder)
    assert ours is not None
    assert ours.tobytes() == plain() != without


def test_training_changes_the_adapter_only(loaded: LoadedSDXL, tmp_path: Path) -> None:
    before = base_weights(loaded)
    result = train_dreambooth_lora(
        loaded, INSTANCE, PRIOR, config(gradient_checkpointing=True), tmp_path, tmp_path / "lora"
    )
    after = loaded.pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in loaded.pipe.unet.parameters())
    weights = load_file(result.folder / LORA_FILE)
    assert all(name.startswith("unet.") for name in weights)
    assert {name.split(".lora.")[-1].split("_")[0] for name in weights}
    ups = [value for name, value in weights.items() if "lora_B" in name or "lora.up" in name]
    assert ups and all(value.any() for value in ups)


def test_alpha_and_rank_travel_with_the_weights(loaded: LoadedSDXL, tmp_path: Path) -> None:
    result = train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path, tmp_path / "lora")
    with safe_open(result.folder / LORA_FILE, framework="pt") as file:
        metadata = file.metadata()
    assert '"unet.lora_alpha": 4' in metadata["lora_adapter_metadata"]
    assert metadata["format"] == "pt"


def test_log_has_one_row_a_step_and_the_parts_of_the_loss(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    options = config(prior_loss_weight=0.5, lr_scheduler="constant", lr_warmup_steps=2)
    log = train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora").log
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in log] == [0.0, 0.005, 0.01, 0.01]
    for row in log:
        assert row["loss"] == pytest.approx(row["instance_loss"] + 0.5 * row["prior_loss"])


def test_loss_falls(loaded: LoadedSDXL, tmp_path: Path) -> None:
    options = tuning(max_train_steps=30, validation_steps=10)
    result = finetune_lora(loaded, INSTANCE, INSTANCE, options, tmp_path, tmp_path / "lora")
    checked = [row["validation_loss"] for row in result.log if row["validation_loss"] is not None]
    assert len(checked) == 4
    assert checked[-1] < checked[0]


def test_accumulated_gradients_weigh_as_one_large_batch(loaded: LoadedSDXL, tmp_path: Path) -> None:
    one = config(max_train_steps=1, train_batch_size=1, gradient_accumulation_steps=4)
    result = train_dreambooth_lora(loaded, INSTANCE, PRIOR, one, tmp_path, tmp_path / "lora")
    assert len(result.log) == 1
    assert 0.1 < result.log[0]["instance_loss"] < 5


def test_min_snr_weights_are_those_of_the_paper(loaded: LoadedSDXL) -> None:
    schedule = DDPMScheduler.from_config(loaded.pipe.scheduler.config)
    times = torch.tensor([0, 200, 900])
    signal_share = schedule.alphas_cumprod[times]
    snr = signal_share / (1 - signal_share)
    assert snr[0] > snr[1] > 2 > snr[2]
    weights = min_snr_weights(schedule, times, 2.0)
    assert torch.allclose(weights, torch.tensor([2 / snr[0], 2 / snr[1], 1.0]))
    assert torch.equal(min_snr_weights(schedule, times, None), torch.ones(3))


def test_same_inputs_give_the_same_bytes_and_other_inputs_others(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    def digest(name: str, **changes: Any) -> str:
        train_dreambooth_lora(
            loaded, INSTANCE, PRIOR, config(**changes), tmp_path / name, tmp_path / name / "lora"
        )
        return lora_digest(tmp_path / name / "lora")

    assert digest("a") == digest("b") == digest("c", checkpointing_steps=1)
    assert digest("d", seed=1) != digest("a")


def test_global_randomness_is_left_alone(loaded: LoadedSDXL, tmp_path: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path, tmp_path / "lora")
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.slow
def test_killed_training_resumes_to_the_bits_of_an_unbroken_one(
    loaded: LoadedSDXL, sdxl_folder: Path, tmp_path: Path, one_thread: None
) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    killed = subprocess.run(
        [sys.executable, "-m", train_once.__name__, sdxl_folder, broken, broken / "lora", "18"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (broken / "lora").exists()

    resumed = train_once.train(loaded, broken, broken / "lora")
    unbroken = train_once.train(loaded, whole, whole / "lora")
    assert (resumed.steps_run, unbroken.steps_run) == (25, 40)  # from checkpoint-15
    assert (broken / "lora" / LORA_FILE).read_bytes() == (whole / "lora" / LORA_FILE).read_bytes()
    assert resumed.log == unbroken.log


@pytest.mark.slow
def test_two_processes_train_the_lora_that_one_does(
    loaded: LoadedSDXL, sdxl_folder: Path, tmp_path: Path, one_thread: None
) -> None:
    alone = train_once.train(
        loaded, tmp_path / "one", tmp_path / "one" / "lora", train_once.ACCUMULATING
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    work = tmp_path / "two"
    subprocess.run(
        [*launch, "--module", train_once.__name__, sdxl_folder, work, work / "lora"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    one = load_file(alone.folder / LORA_FILE)
    two = load_file(work / "lora" / LORA_FILE)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3)


def test_mixed_precision_of_one_training_does_not_reach_the_next(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    def run(name: str, **changes: Any) -> str:
        options, folder = config(**changes), tmp_path / name
        train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, folder, folder / "lora")
        return lora_digest(folder / "lora")

    row = make_image_spec(sampling, "a red ball", 5, 0)
    before = next(generate_images(loaded, [row], 1)).image
    first, mixed, again = run("a"), run("b", mixed_precision="bf16"), run("c")
    assert first == again != mixed
    after = next(generate_images(loaded, [row], 1)).image
    assert before is not None and after is not None
    assert before.tobytes() == after.tobytes()


def test_environment_does_not_change_the_training(
    loaded: LoadedSDXL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_dreambooth_lora(
        loaded, INSTANCE, PRIOR, config(), tmp_path / "a", tmp_path / "a" / "lora"
    )
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    again = train_dreambooth_lora(
        loaded, INSTANCE, PRIOR, config(), tmp_path / "b", tmp_path / "b" / "lora"
    )
    assert lora_digest(first.folder) == lora_digest(again.folder)


def test_finished_training_is_not_run_again(loaded: LoadedSDXL, tmp_path: Path) -> None:
    first = train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path, tmp_path / "lora")
    again = train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path, tmp_path / "lora2")
    assert (first.steps_run, again.steps_run) == (4, 0)
    assert first.log == again.log
    assert lora_digest(tmp_path / "lora") == lora_digest(tmp_path / "lora2")


@pytest.mark.parametrize("damage", [lambda data: b"half", flip_bit], ids=["cut", "flipped bit"])
def test_damaged_checkpoint_is_passed_over(
    loaded: LoadedSDXL, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    options = config(max_train_steps=6)
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora")
    wanted = lora_digest(tmp_path / "lora")
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    damaged = tmp_path / "checkpoint-6" / "adapter.safetensors"
    damaged.write_bytes(damage(damaged.read_bytes()))
    said: list[str] = []
    again = train_dreambooth_lora(
        loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora", said.append
    )
    assert again.steps_run == 2
    assert any("checkpoint-6 cannot be read" in line for line in said)
    assert lora_digest(tmp_path / "lora") == wanted


def test_checkpoint_of_other_inputs_is_not_used(loaded: LoadedSDXL, tmp_path: Path) -> None:
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, config(), tmp_path, tmp_path / "lora")
    other = train_dreambooth_lora(
        loaded, INSTANCE[:1], PRIOR, config(), tmp_path, tmp_path / "lora"
    )
    assert other.steps_run == 4


def test_diverging_training_stops_with_a_remedy(loaded: LoadedSDXL, tmp_path: Path) -> None:
    options = config(max_train_steps=30, learning_rate=1e30)
    with pytest.raises(HoiError, match="diverged at step") as caught:
        train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora")
    assert "lower learning_rate" in caught.value.remedy
    assert not (tmp_path / "lora").exists()
    assert not loaded.pipe.get_list_adapters()


def test_fine_tuning_keeps_the_best_step_and_stops_early(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    options = tuning(
        max_train_steps=40, learning_rate=0.3, validation_steps=1, early_stopping_patience=3
    )
    result = finetune_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora")
    losses = {
        row["step"]: row["validation_loss"]
        for row in result.log
        if row["validation_loss"] is not None
    }
    assert result.stopped_early
    assert result.best_step == min(losses, key=lambda step: losses[step])
    assert result.log[-1]["step"] == result.best_step + 3
    # The saved weights are those of the best step: measured alone they give its loss.
    same = finetune_lora(
        loaded,
        INSTANCE,
        PRIOR,
        options.model_copy(update={"max_train_steps": max(result.best_step, 1)}),
        tmp_path / "short",
        tmp_path / "short" / "lora",
    )
    assert same.best_step == result.best_step
    assert lora_digest(same.folder) == lora_digest(result.folder)


def test_resumed_fine_tuning_remembers_its_best_step(loaded: LoadedSDXL, tmp_path: Path) -> None:
    options = tuning()
    whole = finetune_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora")
    wanted = lora_digest(whole.folder)
    for file in (tmp_path / "checkpoint-6").iterdir():
        file.unlink()
    again = finetune_lora(loaded, INSTANCE, PRIOR, options, tmp_path, tmp_path / "lora")
    assert again.steps_run == 2
    assert (again.log, again.best_step) == (whole.log, whole.best_step)
    assert lora_digest(again.folder) == wanted


def test_too_little_to_train_on_is_said_before_work(loaded: LoadedSDXL, tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="there are no class images"):
        train_dreambooth_lora(loaded, INSTANCE, [], config(), tmp_path, tmp_path / "lora")
    with pytest.raises(HoiError, match="2 training rows are fewer than"):
        finetune_lora(loaded, INSTANCE, [], tuning(min_train_rows=8), tmp_path, tmp_path / "lora")
    with pytest.raises(HoiError, match="no images"):
        train_dreambooth_lora(loaded, [], PRIOR, config(), tmp_path, tmp_path / "lora")


def test_key_follows_every_input() -> None:
    train, prior = [("p1", "a"), ("p2", "b")], [("c1", "c")]
    keys = [
        lora_key(train, prior, config(), "base"),
        lora_key(train[::-1], prior, config(), "base"),
        lora_key([("p1", "other"), ("p2", "b")], prior, config(), "base"),
        lora_key(train, [], config(), "base"),
        lora_key(train, prior, config(seed=1), "base"),
        lora_key(train, prior, config(), "other"),
        lora_key(train, prior, tuning(), "base"),
    ]
    assert len(set(keys)) == len(keys)
    assert lora_key(train, prior, config(checkpointing_steps=9), "base") == keys[0]


def test_pictures_of_any_shape_are_cropped_in_the_middle(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    wide = picture("red", 96).resize((160, 96)).convert("L")
    result = train_dreambooth_lora(
        loaded, [(wide, "a ball")], PRIOR, config(max_train_steps=1), tmp_path, tmp_path / "lora"
    )
    assert len(result.log) == 1
