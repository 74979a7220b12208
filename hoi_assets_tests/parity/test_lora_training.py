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
from hoi_assets.engines.sdxl.lora import LORA_FILE, train_dreambooth_lora
from hoi_assets.engines.seeds import seed_of
from hoi_assets.settings import LoraTraining
from hoi_assets_tests.engines.small_sdxl import picture

Pair = tuple[Image.Image, str]
INSTANCE = [(picture(c), f"a photo of pwrx {c} ball") for c in ("red", "blue", "green")]
CLASS = [(picture("black"), "a black ball"), (picture("white"), "a white ball")]
STEPS = 2
SIDE = 64
CASES = {
    "plain": {"with_prior_preservation": False, "snr_gamma": None},
    "min-SNR": {"with_prior_preservation": False, "snr_gamma": 5.0},
    "prior": {"snr_gamma": None, "prior_loss_weight": 0.5},
    "prior and min-SNR": {"snr_gamma": 5.0, "weight_prior_by_snr": False},
    "two micro-batches": {"snr_gamma": None, "gradient_accumulation_steps": 2},
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
    unet = pipe.unet
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
    optimizer = torch.optim.AdamW(
        params, lr=args.learning_rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
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
    StableDiffusionXLPipeline.save_lora_weights(
        out,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
    )
    return losses


def _loss(pipe: Any, noise_scheduler: Any, args: LoraTraining, number: int) -> torch.Tensor:
    """The script's loss of one micro-batch: instance examples first, then as many class ones."""
    size = args.train_batch_size
    batch: list[Pair] = []
    for place, pairs in enumerate((INSTANCE, CLASS)[: 1 + args.with_prior_preservation]):
        order = batch_indices(len(pairs), size, number, seed_of(args.seed, "order", place))
        batch += [pairs[index] for index in order]
    with torch.no_grad():
        pixel_values = [pipe.image_processor.preprocess(image) for image, _ in batch]
        latents = [pipe.vae.encode(one).latent_dist.mode() for one in pixel_values]
        model_input = torch.cat(latents) * pipe.vae.config.scaling_factor
        encoded = [pipe.encode_prompt(text, do_classifier_free_guidance=False) for _, text in batch]
    prompt_embeds = torch.cat([one[0] for one in encoded])
    text_embeds = torch.cat([one[2] for one in encoded])
    # Original size, the crop's top left corner, target size.
    time_ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * len(batch), dtype=torch.float32)

    generator = torch.Generator().manual_seed(seed_of(args.seed, "noise", number))
    noise = torch.randn(model_input.shape, generator=generator)
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
