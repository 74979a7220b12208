"""Two steps of DreamBooth LoRA training equal those of diffusers' `train_dreambooth_lora_sdxl.py`.

The loop below is written after that script with plain diffusers, peft and torch. Given to both are
what a script draws at random: initial weights, order, noise and times. One thing differs from the
script on purpose, here and in ours: latents are the mode of the VAE's posterior, not a sample.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from hoi_assets.engines.sdxl.denoising import batch_indices
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.lora import train_dreambooth_lora
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.engines.seeds import seed_of
from hoi_assets.settings import LoraTraining
from hoi_assets_tests.engines.small_sdxl import picture

Pair = tuple[Image.Image, str]
SIZES = ((64, 64), (97, 70), (64, 128))  # width and height
INSTANCE = [
    (picture(colour).resize(size), f"a photo of pwrx {colour} ball")
    for colour, size in zip(("red", "blue", "green"), SIZES, strict=True)
]
CLASS = [(picture("black"), "a black ball"), (picture("white"), "a white ball")]
STEPS = 2
SIDE = 64
CASES = {
    "plain": {"with_prior_preservation": False, "snr_gamma": None},
    "min-SNR": {"with_prior_preservation": False, "snr_gamma": 5.0},
    "prior": {"snr_gamma": None, "prior_loss_weight": 0.5},
    "prior and min-SNR": {"snr_gamma": 5.0, "weight_prior_by_snr": False},
    "two micro-batches": {"snr_gamma": None, "gradient_accumulation_steps": 2},
    "noise offset": {"snr_gamma": None, "noise_offset": 0.1},
    "text encoders": {"snr_gamma": None, "train_text_encoder": True, "text_encoder_lr": 5e-4},
    "options of Adam": {
        "snr_gamma": None,
        "adam_beta1": 0.8,
        "adam_beta2": 0.95,
        "adam_weight_decay": 1e-4,
        "adam_epsilon": 1e-6,
    },
}


def options(**changes: Any) -> LoraTraining:
    fields = {
        "rank": 2,
        "lora_alpha": 4,
        "max_train_steps": STEPS,
        "train_batch_size": 2,
        "learning_rate": 1e-3,
        "lr_scheduler": "cosine",
    }
    return LoraTraining(**{**fields, **changes})


@pytest.mark.parametrize("case", CASES)
def test_two_steps_are_those_of_diffusers_script(
    loaded: LoadedSDXL, tmp_path: Path, case: str
) -> None:
    args = options(**CASES[case])
    ours = train_dreambooth_lora(loaded, INSTANCE, CLASS, args, tmp_path / "w", tmp_path / "ours")
    losses = diffusers_recipe(Path(loaded.ref.source), args, tmp_path / "theirs")
    assert [row["loss"] for row in ours.log] == pytest.approx(losses, abs=1e-6)
    mine, wanted = (load_file(tmp_path / name / LORA_FILE) for name in ("ours", "theirs"))
    assert mine.keys() == wanted.keys() and len(mine) > 10
    # A step of Adam moves every weight by about the learning rate, 1e-3.
    largest = max(float((mine[name] - wanted[name]).abs().max()) for name in mine)
    assert largest <= 1e-6
    assert max(float(value.abs().max()) for name, value in mine.items() if "lora.up" in name) > 1e-4


def diffusers_recipe(base: Path, args: LoraTraining, out: Path) -> list[float]:
    """Train as the script does and save the LoRA; returns the loss of each step."""
    from diffusers import DDPMScheduler, StableDiffusionXLPipeline
    from diffusers.optimization import get_scheduler
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = StableDiffusionXLPipeline.from_pretrained(base)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    unet, encoders = pipe.unet, [pipe.text_encoder, pipe.text_encoder_2]
    for frozen in (unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        frozen.requires_grad_(False)
    torch.manual_seed(seed_of(args.seed, "initial weights"))
    unet.add_adapter(
        LoraConfig(
            r=args.rank,
            lora_alpha=args.lora_alpha,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    unet.train()
    params = [p for p in unet.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": params, "lr": args.learning_rate}]
    if args.train_text_encoder:
        for name, encoder in zip(("text_encoder", "text_encoder_2"), encoders, strict=True):
            torch.manual_seed(seed_of(args.seed, "initial weights", name))
            config = LoraConfig(
                r=args.rank,
                lora_alpha=args.lora_alpha,
                init_lora_weights="gaussian",
                target_modules=["q_proj", "k_proj", "v_proj", "out_proj"],
            )
            encoder.add_adapter(config)
            encoder.train()
            text_params = [p for p in encoder.parameters() if p.requires_grad]
            groups.append({"params": text_params, "lr": args.text_encoder_lr})
            params = params + text_params
    optimizer = torch.optim.AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    lr_scheduler = get_scheduler(
        args.lr_scheduler, optimizer, num_warmup_steps=0, num_training_steps=args.max_train_steps
    )
    losses = []
    for step in range(args.max_train_steps):
        parts = []
        for part in range(args.gradient_accumulation_steps):
            number = step * args.gradient_accumulation_steps + part
            loss = _loss(pipe, noise_scheduler, args, number)
            (loss / args.gradient_accumulation_steps).backward()
            parts.append(loss.item())
        torch.nn.utils.clip_grad_norm_(params, args.max_grad_norm)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        losses.append(sum(parts) / len(parts))
    text = {
        f"text_encoder{end}_lora_layers": {
            f"text_model.{key.removeprefix('text_model.')}": value
            for key, value in convert_state_dict_to_diffusers(
                get_peft_model_state_dict(encoder)
            ).items()
        }
        for end, encoder in zip(("", "_2"), encoders, strict=True)
        if args.train_text_encoder
    }
    StableDiffusionXLPipeline.save_lora_weights(
        out,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        **text,
    )
    return losses


def _loss(pipe: Any, noise_scheduler: Any, args: LoraTraining, number: int) -> torch.Tensor:
    """The script's loss of one micro-batch: instance examples first, then as many class ones."""
    size = args.train_batch_size
    batch: list[Pair] = []
    for place, pairs in enumerate((INSTANCE, CLASS)[: 1 + args.with_prior_preservation]):
        order = batch_indices(len(pairs), size, number, seed_of(args.seed, "order", place))
        batch += [pairs[index] for index in order]
    cropped = [_center_crop(image) for image, _ in batch]
    with torch.no_grad():
        pixel_values = [pipe.image_processor.preprocess(image) for image, _ in cropped]
        latents = [pipe.vae.encode(one).latent_dist.mode() for one in pixel_values]
        model_input = torch.cat(latents) * pipe.vae.config.scaling_factor
    with torch.set_grad_enabled(args.train_text_encoder):
        encoded = [pipe.encode_prompt(text, do_classifier_free_guidance=False) for _, text in batch]
    prompt_embeds = torch.cat([one[0] for one in encoded])
    text_embeds = torch.cat([one[2] for one in encoded])
    time_ids = torch.tensor(
        [
            compute_time_ids((image.height, image.width), crops_coords_top_left)
            for (image, _), (_, crops_coords_top_left) in zip(batch, cropped, strict=True)
        ],
        dtype=torch.float32,
    )

    generator = torch.Generator().manual_seed(seed_of(args.seed, "noise", number))
    noise = torch.randn(model_input.shape, generator=generator)
    if args.noise_offset:
        offset = torch.Generator().manual_seed(seed_of(args.seed, "noise offset", number))
        shape = (model_input.shape[0], model_input.shape[1], 1, 1)
        noise += args.noise_offset * torch.randn(shape, generator=offset)
    timesteps = torch.randint(
        0, noise_scheduler.config.num_train_timesteps, (len(batch),), generator=generator
    )
    model_pred = pipe.unet(
        noise_scheduler.add_noise(model_input, noise, timesteps),
        timesteps,
        prompt_embeds,
        added_cond_kwargs={"time_ids": time_ids, "text_embeds": text_embeds},
    ).sample
    target = noise
    prior_loss = torch.zeros(())
    if args.with_prior_preservation:
        model_pred, model_pred_prior = torch.chunk(model_pred, 2, dim=0)
        target, target_prior = torch.chunk(target, 2, dim=0)
        timesteps, _ = torch.chunk(timesteps, 2, dim=0)
        prior_loss = F.mse_loss(model_pred_prior, target_prior, reduction="mean")
    if args.snr_gamma is None:
        loss = F.mse_loss(model_pred, target, reduction="mean")
    else:
        alphas = noise_scheduler.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        weights = torch.stack([snr, args.snr_gamma * torch.ones_like(snr)], dim=1).min(1)[0] / snr
        loss = F.mse_loss(model_pred, target, reduction="none").mean(dim=(1, 2, 3))
        loss = (loss * weights).mean()
    return loss + args.prior_loss_weight * prior_loss


def compute_time_ids(
    original_size: tuple[int, int], crops_coords_top_left: tuple[int, int]
) -> list[int]:
    """As the script's function of this name."""
    target_size = (SIDE, SIDE)
    return list(original_size + crops_coords_top_left + target_size)


def _center_crop(image: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
    """The script's `train_resize` and `--center_crop`, without torchvision."""
    scale = SIDE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    y1 = max(0, round((image.height - SIDE) / 2.0))
    x1 = max(0, round((image.width - SIDE) / 2.0))
    return image.crop((x1, y1, x1 + SIDE, y1 + SIDE)), (y1, x1)
