"""The tiny world's Stable Diffusion XL: UNet and both text encoders, in SDXL's own classes."""

from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights.tokenizers import MAX_LENGTH, clip_tokenizer
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE, LATENT_CHANNELS, LATENT_SIZE, build_vae

WIDTH_1, WIDTH_2 = 96, 128
TIME_ID_WIDTH = 32
TIME_IDS = (IMAGE_SIZE, IMAGE_SIZE, 0, 0, IMAGE_SIZE, IMAGE_SIZE)


def build_unet(latent_channels: int = LATENT_CHANNELS) -> Any:
    """A fresh UNet2DConditionModel for the two text encoders below."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3, 4),  # the number of heads: diffusers kept the old name
        transformer_layers_per_block=1,
        use_linear_projection=True,
        norm_num_groups=16,
        cross_attention_dim=WIDTH_1 + WIDTH_2,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=WIDTH_2 + len(TIME_IDS) * TIME_ID_WIDTH,
    )


def build_text_encoders(tokenizer: Any) -> tuple[Any, Any]:
    """Fresh CLIPTextModel and CLIPTextModelWithProjection for one vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config(width: int, heads: int) -> Any:
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=3,
            num_attention_heads=heads,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=WIDTH_2,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            # Without it the pooled output is the same for every text.
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    return CLIPTextModel(config(WIDTH_1, 3)), CLIPTextModelWithProjection(config(WIDTH_2, 4))


def noise_schedule() -> Any:
    """SDXL's schedule, with v prediction (Salimans and Ho 2022, appendix D).

    Its loss asks for colours and layout at high noise too, so they are learnt in fewer steps.
    """
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        timestep_spacing="leading",
        steps_offset=1,
        interpolation_type="linear",
        use_karras_sigmas=False,
    )


def build_pipeline(vae: Any = None) -> Any:
    """A fresh StableDiffusionXLPipeline over `vae`; None: over a fresh one."""
    from diffusers import StableDiffusionXLPipeline

    first, second = clip_tokenizer(), clip_tokenizer(pad_token="!")
    text_encoder, _ = build_text_encoders(first)
    _, text_encoder_2 = build_text_encoders(second)
    vae = vae or build_vae()
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=first,
        tokenizer_2=second,
        unet=build_unet(vae.config.latent_channels),
        scheduler=noise_schedule(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def start_from(pipeline: Any, other: Any) -> None:
    """Give `pipeline` the weights of `other`, but for the layers whose shapes differ: those next to
    the latents, where the autoencoders have other channels."""
    for part in ("unet", "text_encoder", "text_encoder_2"):
        own, learnt = getattr(pipeline, part), getattr(other, part).state_dict()
        fitting = {
            name: learnt[name]
            for name, value in own.state_dict().items()
            if learnt[name].shape == value.shape
        }
        own.load_state_dict(fitting, strict=False)


def stored(folder: Path) -> Any:
    """Stored weights in fp32, in a pipeline that knows neither its folder nor earlier calls.

    Raises:
        HoiError: nothing is stored there.
    """
    import torch
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline

    if not (folder / "model_index.json").is_file():
        raise HoiError(
            f"no tiny sdxl in {folder}",
            "train it first: python -m hoi_assets.tinyworld.weights train vae sdxl",
        )
    found = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, add_watermarker=False
    )
    vae = AutoencoderKL.from_config(dict(found.vae.config))
    vae.load_state_dict(found.vae.state_dict())
    pipeline = build_pipeline(vae)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        getattr(pipeline, part).load_state_dict(getattr(found, part).state_dict())
    return pipeline


def save(pipeline: Any, folder: Path) -> None:
    """Write `pipeline` as fp16 safetensors, which plain `from_pretrained` loads."""
    import torch

    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)


def encode_text(text_encoder: Any, text_encoder_2: Any, ids: Any, ids_2: Any) -> tuple[Any, Any]:
    """Text embeddings (B, T, 224) and pooled embedding (B, 128), as the pipeline makes them."""
    import torch

    first = text_encoder(ids, output_hidden_states=True)
    second = text_encoder_2(ids_2, output_hidden_states=True)
    embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return embeds, second.text_embeds


def trainable(pipeline: Any) -> Any:
    """The parts that learn together: UNet and both text encoders."""
    from diffusers.models.attention_processor import AttnProcessor
    from torch import nn

    # Plain attention: the fused kernel's backward pass is several times slower on a CPU.
    pipeline.unet.set_attn_processor(AttnProcessor())
    pipeline.text_encoder.set_attn_implementation("eager")
    pipeline.text_encoder_2.set_attn_implementation("eager")
    return nn.ModuleDict(
        {
            "unet": pipeline.unet,
            "text_encoder": pipeline.text_encoder,
            "text_encoder_2": pipeline.text_encoder_2,
        }
    )


def caption_variants(pictures: Any, count: int) -> list[list[str]]:
    """Per picture its caption and `count - 1` rewordings of it; a false caption stays as it is."""
    texts = []
    for index, row in enumerate(pictures.rows):
        again = range(1, count) if row["alignment"] else ()
        said = [row["caption"]]
        said += [pictures.true_caption(index, int(row["seed"]) + number) for number in again]
        texts.append((said * count)[:count])
    return texts


def loss_of(model: Any, pipeline: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: squared error of the predicted velocity.

    A tenth of the captions is dropped by zeroing both embeddings, which is what the pipeline takes
    for an absent negative prompt.
    """
    import torch

    from hoi_assets.tinyworld.weights.pictures import draw_indices
    from hoi_assets.tinyworld.weights.tokenizers import token_ids
    from hoi_assets.tinyworld.weights.vae import encode

    count = int(recipe["wordings"])
    flat = [text for texts in caption_variants(pictures, count) for text in texts]
    device = pictures.pixels.device
    ids, _ = token_ids(pipeline.tokenizer, flat, device=device)
    ids_2, _ = token_ids(pipeline.tokenizer_2, flat, device=device)
    vae = pipeline.vae.to(device)
    clean = encode(vae, pictures.pixels)[0] * vae.config.scaling_factor
    signal = pipeline.scheduler.alphas_cumprod.float().to(device)

    def loss(generator: Any) -> Any:
        chosen = draw_indices(len(pictures), recipe.batch_size, generator)
        said = torch.randint(count, (len(chosen),), generator=generator)
        text = (torch.tensor(chosen) * count + said).to(device)
        latents = clean[chosen]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        steps = torch.randint(len(signal), (len(chosen),), generator=generator).to(device)
        alpha = signal[steps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        embeds, pooled = encode_text(
            model["text_encoder"], model["text_encoder_2"], ids[text], ids_2[text]
        )
        kept = torch.rand(len(chosen), generator=generator) >= recipe["caption_dropout"]
        kept = kept.to(device)
        predicted = model["unet"](
            noisy,
            steps,
            encoder_hidden_states=embeds * kept.view(-1, 1, 1),
            added_cond_kwargs={
                "text_embeds": pooled * kept.view(-1, 1),
                "time_ids": torch.tensor([TIME_IDS] * len(chosen)).float().to(device),
            },
        ).sample
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        return (predicted.float() - velocity).square().mean()

    return loss


def generate(
    pipeline: Any, prompts: list[str], seed: int = 0, guidance_scale: float = 4.0
) -> list[Any]:
    """One PIL picture per prompt, 16 steps of DPM++ 2M, noise from (seed, place)."""
    import torch
    from diffusers import DPMSolverMultistepScheduler

    scheduler = pipeline.scheduler
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Any] = []
    for start in range(0, len(prompts), 16):
        batch = prompts[start : start + 16]
        noise = [torch.Generator().manual_seed(seed + start + n) for n in range(len(batch))]
        with torch.inference_mode():
            pictures += pipeline(
                batch,
                num_inference_steps=16,
                guidance_scale=guidance_scale,
                generator=noise,
                height=IMAGE_SIZE,
                width=IMAGE_SIZE,
            ).images
    pipeline.scheduler = scheduler
    return pictures
