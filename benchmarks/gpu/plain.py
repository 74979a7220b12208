"""What the platform is measured against, with plain diffusers and none of the platform's code."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load_sdxl(folder: Path, device: str, dtype: str) -> Any:
    """The plain SDXL pipeline, as its documentation loads it."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_sd3(folder: Path, device: str, dtype: str) -> Any:
    """The plain Stable Diffusion 3 pipeline."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def train_dreambooth(
    folder: Path,
    device: str,
    dtype: str,
    pictures: Sequence[Any],
    prompt: str,
    side: int,
    warm_up: int,
    steps: int,
) -> float:
    """Steps a second of the loop of diffusers' `train_dreambooth_lora_sdxl.py`, batch size 1.

    As the script without prior preservation does it: rank 16, gradient checkpointing, autocast of
    the base's half precision, prompt encoded once, each picture encoded by the VAE in every step.
    """
    import torch
    from diffusers import DDPMScheduler
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    pipe = load_sdxl(folder, device, dtype)
    unet, schedule = pipe.unet, DDPMScheduler.from_config(pipe.scheduler.config)
    for frozen in (unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        frozen.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=16,
            lora_alpha=16,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    cast_training_params(unet, dtype=torch.float32)
    unet.train()
    unet.enable_gradient_checkpointing()
    parameters = [one for one in unet.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4, eps=1e-8)
    with torch.no_grad():
        embeds, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
    added = {
        "text_embeds": pooled,
        "time_ids": torch.tensor([[side, side, 0, 0, side, side]], device=device),
    }
    half = unet.dtype != torch.float32
    autocast = torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half)
    began = 0.0
    for step in range(warm_up + steps):
        if step == warm_up:
            began = settled(device)
        pixels = pipe.image_processor.preprocess(pictures[step % len(pictures)])
        with torch.no_grad():
            latents = pipe.vae.encode(pixels.to(device, pipe.vae.dtype)).latent_dist.sample()
        latents = latents * pipe.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(0, schedule.config.num_train_timesteps, (1,), device=device)
        with autocast:
            predicted = unet(
                schedule.add_noise(latents, noise, times), times, embeds, added_cond_kwargs=added
            ).sample
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return steps / (settled(device) - began)


def settled(device: str) -> float:
    """The time once the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()
