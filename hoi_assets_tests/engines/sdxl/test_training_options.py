"""Promises of the options of LoRA training, each under its name in diffusers' scripts."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.checkpoints import Checkpoints, TrainingState
from hoi_assets.engines.sdxl.denoising import bucket_indices
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.lora import finetune_lora, train_dreambooth_lora
from hoi_assets.engines.sdxl.sampling import (
    LORA_FILE,
    generate_images,
    lora_digest,
    make_image_spec,
    make_scheduler,
)
from hoi_assets.engines.sdxl.training_requirements import check_requirements
from hoi_assets.errors import HoiError
from hoi_assets.settings import FineTuning, LoraTraining, ModelRef, Sampling, load_settings
from hoi_assets_tests.engines.small_sdxl import picture, random_lora

INSTANCE = [
    (picture("red"), "a photo of pwrx red ball"),
    (picture("blue").resize((96, 64)), "a photo of pwrx blue ball"),
    (picture("green").resize((64, 100)), "a photo of pwrx green ball"),
]
PRIOR = [(picture("black"), "a black ball")]
BUCKETS = "64,64;64,96;96,64"
NEEDS_PRODIGY = pytest.mark.skipif(find_spec("prodigyopt") is None, reason="needs prodigyopt")
NEEDS_8BIT = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
OPTIONS = [
    pytest.param({"lora_dropout": 0.5}, id="lora_dropout"),
    pytest.param({"noise_offset": 0.1}, id="noise_offset"),
    pytest.param({"proportion_empty_prompts": 0.5}, id="proportion_empty_prompts"),
    pytest.param({"random_flip": True}, id="random_flip"),
    pytest.param({"center_crop": False}, id="center_crop"),
    pytest.param({"aspect_ratio_buckets": BUCKETS}, id="aspect_ratio_buckets"),
    pytest.param({"train_text_encoder": True, "text_encoder_lr": 1e-3}, id="train_text_encoder"),
    pytest.param({"optimizer": "prodigy", "learning_rate": 1.0}, id="prodigy", marks=NEEDS_PRODIGY),
    # Smaller tensors than those of this rank keep moments of 32 bits.
    pytest.param({"optimizer": "adamw_8bit", "rank": 256}, id="adamw_8bit", marks=NEEDS_8BIT),
    pytest.param(
        {
            "train_text_encoder": True,
            "lora_dropout": 0.2,
            "gradient_checkpointing": True,
            "random_flip": True,
            "proportion_empty_prompts": 0.5,
            "aspect_ratio_buckets": BUCKETS,
            "validation_prompt": "a red ball",
            "validation_steps": 1,
            "mixed_precision": "bf16",
        },
        id="several",
    ),
]


KILLED_IN_CALL = 4  # of the UNet; a step takes two where class images have another size


class Killed(BaseException):
    """Ends a training as a kill does: nothing catches it, checkpoints stay."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(**changes: Any) -> LoraTraining:
    fields = {
        "rank": 2,
        "lora_alpha": 4,
        "max_train_steps": 4,
        "train_batch_size": 2,
        "learning_rate": 1e-2,
        "checkpointing_steps": 1,
    }
    return LoraTraining(**{**fields, **changes})


def train(loaded: LoadedSDXL, folder: Path, **changes: Any) -> bytes:
    options = config(**changes)
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, folder / "work", folder / "lora")
    return (folder / "lora" / LORA_FILE).read_bytes()


@pytest.fixture(scope="module")
def plain_lora(sdxl_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The LoRA that all options at their defaults give."""
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    return train(loaded, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("changes", OPTIONS)
def test_a_training_that_was_killed_resumes_to_the_bits_of_an_unbroken_one(
    loaded: LoadedSDXL, tmp_path: Path, plain_lora: bytes, changes: dict[str, Any]
) -> None:
    networks = [loaded.pipe.unet, loaded.pipe.text_encoder, loaded.pipe.text_encoder_2]
    before = [{k: v.clone() for k, v in one.state_dict().items()} for one in networks]
    whole = train(loaded, tmp_path / "whole", **changes)
    assert whole != plain_lora
    calls: list[int] = []

    def kill(*_: Any) -> None:
        calls.append(1)
        if len(calls) == KILLED_IN_CALL:
            raise Killed

    hook = loaded.pipe.unet.register_forward_hook(kill)
    try:
        with pytest.raises(Killed):
            train(loaded, tmp_path / "broken", **changes)
    finally:
        hook.remove()
    assert list((tmp_path / "broken" / "work").glob("checkpoint-*"))
    assert not (tmp_path / "broken" / "lora").exists()
    torch.manual_seed(7)  # what ran before must not matter
    assert train(loaded, tmp_path / "broken", **changes) == whole
    drawn_with = [
        [path.read_bytes() for path in sorted((tmp_path / name).glob("work/snapshots/*/*"))]
        for name in ("whole", "broken")
    ]
    assert drawn_with[0] == drawn_with[1]
    assert len(drawn_with[0]) == (4 if "validation_prompt" in changes else 0)
    for network, own in zip(networks, before, strict=True):
        after = network.state_dict()
        assert after.keys() == own.keys()
        assert all(torch.equal(after[name], value) for name, value in own.items())
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_plain_diffusers_opens_the_lora_of_the_text_encoders_too(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline

    train(loaded, tmp_path, train_text_encoder=True, lora_dropout=0.3)
    folder, text = tmp_path / "lora", INSTANCE[0][1]
    trained = load_file(folder / LORA_FILE)
    for part in ("text_encoder.text_model.", "text_encoder_2.text_model.", "unet."):
        assert any(name.startswith(part) and value.any() for name, value in trained.items())
    base = make_image_spec(sampling, text, 5, 0)
    row = make_image_spec(sampling, text, 5, 0, Lora(str(folder), lora_digest(folder)))
    first, ours, last = (next(generate_images(loaded, [one], 1)).image for one in (base, row, base))
    assert first is not None and ours is not None and last is not None
    assert first.tobytes() == last.tobytes() != ours.tobytes()
    pipe = StableDiffusionXLPipeline.from_pretrained(loaded.ref.source)
    pipe.scheduler = make_scheduler(loaded, row.scheduler)
    pipe.load_lora_weights(folder)

    def plain() -> bytes:
        noise = [torch.Generator().manual_seed(5)]
        steps, guidance = row.steps, row.guidance_scale
        found = pipe(text, num_inference_steps=steps, guidance_scale=guidance, generator=noise)
        return found.images[0].tobytes()

    assert plain() == ours.tobytes()
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        encoder.disable_adapters()
    assert plain() != ours.tobytes()


def test_loras_of_the_unet_and_of_the_text_encoders_take_turns(
    loaded: LoadedSDXL, sampling: Sampling, tmp_path: Path
) -> None:
    both = random_lora(loaded, tmp_path / "both", seed=1, text_encoders=True)
    unet = random_lora(loaded, tmp_path / "unet", seed=2)

    def drawn(*order: Lora | None) -> list[bytes]:
        loaded.unload_adapters()
        found = []
        for lora in order:
            row = make_image_spec(sampling, "a red ball", 5, 0, lora)
            image = next(generate_images(loaded, [row], 1)).image
            assert image is not None
            found.append(image.tobytes())
        return found

    alone = [drawn(lora)[0] for lora in (both, unet, None)]
    assert len(set(alone)) == 3
    assert drawn(both, unet, None, both, None, unet) == [alone[n] for n in (0, 1, 2, 0, 2, 1)]


def test_dropping_every_caption_trains_on_empty_ones(loaded: LoadedSDXL, tmp_path: Path) -> None:
    dropped = train(loaded, tmp_path / "a", proportion_empty_prompts=1.0)
    empty = [(image, "") for image, _ in INSTANCE]
    folder = tmp_path / "b"
    train_dreambooth_lora(loaded, empty, PRIOR, config(), folder / "work", folder / "lora")
    assert (folder / "lora" / LORA_FILE).read_bytes() == dropped


def test_validation_has_neither_dropout_nor_mirrored_pictures(
    loaded: LoadedSDXL, tmp_path: Path
) -> None:
    losses = []
    for name, changes in (
        ("plain", {}),
        (
            "random",
            {
                "lora_dropout": 0.9,
                "random_flip": True,
                "center_crop": False,
                "proportion_empty_prompts": 1.0,
                "train_text_encoder": True,
            },
        ),
    ):
        options = FineTuning(
            rank=2, max_train_steps=1, train_batch_size=2, min_train_rows=1, **changes
        )
        folder = tmp_path / name
        done = finetune_lora(loaded, PRIOR, INSTANCE, options, folder / "w", folder / "lora")
        losses.append(done.log[0]["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_batch_holds_one_bucket_and_an_epoch_every_picture() -> None:
    buckets = [[0, 3, 4, 6, 8], [1], [2, 5, 7]]
    epochs = [
        [bucket_indices(buckets, 2, moment, seed=3) for moment in range(start, start + 6)]
        for start in (0, 6)
    ]
    for batches in epochs:
        assert all(any(set(batch) <= set(one) for one in buckets) for batch in batches)
        assert all(len(batch) == 2 for batch in batches)
        assert {number for batch in batches for number in batch} == set(range(9))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("changes", "package"),
    [
        ({"optimizer": "prodigy"}, "prodigyopt"),
        ({"optimizer": "adamw_8bit"}, "bitsandbytes"),
        ({"report_to": "tensorboard"}, "tensorboard"),
        ({"report_to": "wandb"}, "wandb"),
    ],
)
def test_a_missing_package_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # Python's own mark of a module that is absent
    with pytest.raises(HoiError, match=f"needs the package {package}") as caught:
        check_requirements(config(**changes), ModelRef(source="base"), "cuda")
    assert f"pip install '{package}" in caught.value.remedy


@NEEDS_PRODIGY
def test_prodigy_says_when_its_learning_rate_is_low(loaded: LoadedSDXL, tmp_path: Path) -> None:
    said: list[str] = []
    options = config(optimizer="prodigy", learning_rate=1e-4, max_train_steps=1)
    folder = tmp_path / "lora"
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, tmp_path / "w", folder, said.append)
    assert any("learning_rate 0.0001 is low" in line for line in said)


def test_fp16_is_refused_on_the_cpu_before_work(loaded: LoadedSDXL, tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="mixed_precision fp16 needs a GPU"):
        train(loaded, tmp_path, mixed_precision="fp16")
    assert not list(tmp_path.rglob("*.float32"))
    profile, tiny = tmp_path / "mine.yaml", load_settings("tiny")
    changed = tiny.model_dump(mode="json", exclude_none=True)
    changed["lora"]["mixed_precision"] = "fp16"
    profile.write_text(yaml.safe_dump(changed), encoding="utf-8")
    with pytest.raises(HoiError, match=r"lora\.mixed_precision fp16 needs a GPU"):
        load_settings(str(profile))


def test_a_checkpoint_keeps_the_gradient_scaler_of_fp16(tmp_path: Path) -> None:
    def parts() -> tuple[dict[str, Any], Any, Any]:
        weight = torch.nn.Parameter(torch.ones(3))
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        return {"w": weight}, torch.optim.AdamW([weight], lr=0.1), scaler

    parameters, optimizer, scaler = parts()
    for factor in (1.0, float("inf"), 2.0):
        scaler.scale(parameters["w"].sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 4.0  # halved by the step that overflowed
    best = {"w": torch.zeros(3)}
    Checkpoints(tmp_path, "key", parameters, optimizer, best, print, scaler).save(TrainingState(3))
    others, other, resumed = parts()
    Checkpoints(tmp_path, "key", others, other, best, print, resumed).load()
    assert resumed.state_dict() == scaler.state_dict()
    assert torch.equal(others["w"], parameters["w"])


@pytest.mark.parametrize("text", ["", "64", "64,64;", "64,60", "0,64", "64,64;64,64", "64x64"])
def test_buckets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="aspect_ratio_buckets"):
        LoraTraining(aspect_ratio_buckets=text)


def test_random_flip_warns(loaded: LoadedSDXL, tmp_path: Path) -> None:
    said: list[str] = []
    options = config(random_flip=True, max_train_steps=1)
    folder = tmp_path / "lora"
    train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, tmp_path / "w", folder, said.append)
    assert any("left hand becomes a right" in line for line in said)


def test_validation_pictures_need_the_loras_on_the_way_and_change_nothing(
    loaded: LoadedSDXL, tmp_path: Path, plain_lora: bytes
) -> None:
    options = config(validation_prompt="a red ball", validation_steps=3)
    work, folder = tmp_path / "work", tmp_path / "lora"
    done = train_dreambooth_lora(loaded, INSTANCE, PRIOR, options, work, folder)
    assert sorted(done.snapshots) == [3, 4]
    assert (folder / LORA_FILE).read_bytes() == plain_lora
    assert (done.snapshots[4] / LORA_FILE).read_bytes() == plain_lora
    assert (done.snapshots[3] / LORA_FILE).read_bytes() != plain_lora


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_gets_every_step_and_changes_nothing(
    loaded: LoadedSDXL, tmp_path: Path, plain_lora: bytes
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "logs" / "hook-1234"
    options, folder = config(report_to="tensorboard"), tmp_path / "lora"
    done = train_dreambooth_lora(
        loaded, INSTANCE, PRIOR, options, tmp_path / "work", folder, logs=logs
    )
    assert (folder / LORA_FILE).read_bytes() == plain_lora
    events = EventAccumulator(str(logs))
    events.Reload()
    for name in ("loss", "instance_loss", "prior_loss", "learning_rate"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(row["step"], pytest.approx(row[name])) for row in done.log]
