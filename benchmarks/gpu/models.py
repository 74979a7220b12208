"""SDXL and Stable Diffusion 3.5 medium by their published configurations, with random weights.

The configurations are written down here and nothing is downloaded: weights of this size are drawn
on the device in seconds. What a step costs does not depend on their values. Tokenizers know single
characters only, for the vocabularies are not needed: texts are padded to the full length anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP_TOKENS, CLIP_VOCABULARY, T5_VOCABULARY = 77, 49408, 32128


@dataclass(frozen=True)
class Size:
    """Configurations of both pipelines, and how much of each measurement is done.

    Attributes:
        side: of the images, in pixels.
        dtype: of the weights.
        images, batch_size, steps: of sampling.
        train_steps: of LoRA training that are timed, after two that warm up.
        prompts: of refinement by the platform, in one batch; the published procedure draws one.
        refine_steps: denoising steps of refinement; more than four.
        sdxl, sd3: keyword arguments of the parts, by their name in diffusers.
    """

    side: int
    dtype: str
    images: int
    batch_size: int
    steps: int
    train_steps: int
    prompts: int
    refine_steps: int
    sdxl: dict[str, dict[str, Any]] = field(repr=False)
    sd3: dict[str, dict[str, Any]] = field(repr=False)


_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_FULL_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024}
FULL = Size(
    side=1024,
    dtype="bfloat16",
    images=8,
    batch_size=4,
    steps=20,
    train_steps=8,
    prompts=4,
    refine_steps=28,
    sdxl={
        # stabilityai/stable-diffusion-xl-base-1.0
        "unet": {
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "vae": _FULL_VAE | {"latent_channels": 4, "scaling_factor": 0.13025, "force_upcast": False},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
    },
    sd3={
        # stabilityai/stable-diffusion-3.5-medium
        "transformer": {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        "vae": _FULL_VAE
        | {
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "force_upcast": False,
        },
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
        "text_encoder_3": {
            "d_model": 4096,
            "d_ff": 10240,
            "d_kv": 64,
            "num_layers": 24,
            "num_heads": 64,
            "feed_forward_proj": "gated-gelu",
        },
    },
)
_SMALL_CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
_SMALL_VAE = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "sample_size": 64}
TINY = Size(
    side=64,
    dtype="float32",
    images=2,
    batch_size=2,
    steps=2,
    train_steps=1,
    prompts=1,
    refine_steps=6,
    sdxl={
        "unet": {
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4),
            "cross_attention_dim": 32,
            "norm_num_groups": 8,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 16 + 6 * 8,
        },
        "vae": _SMALL_VAE | {"latent_channels": 4, "force_upcast": False},
        "text_encoder": _SMALL_CLIP,
        "text_encoder_2": _SMALL_CLIP,
    },
    sd3={
        "transformer": {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 8,
            "qk_norm": "rms_norm",
        },
        "vae": _SMALL_VAE | {"latent_channels": 4, "shift_factor": 0.1, "force_upcast": False},
        "text_encoder": _SMALL_CLIP,
        "text_encoder_2": _SMALL_CLIP,
        "text_encoder_3": {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2},
    },
)
SIZES = {"full": FULL, "tiny": TINY}


def make_sdxl(size: Size, folder: Path, device: str) -> None:
    """Write SDXL with random weights in diffusers' layout."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with _drawn_on(device, size.dtype):
        parts = {
            "unet": UNet2DConditionModel(**size.sdxl["unet"]),
            "vae": AutoencoderKL(**VAE, **size.sdxl["vae"]),
            "text_encoder": CLIPTextModel(_clip_config(size.sdxl["text_encoder"])),
            "text_encoder_2": CLIPTextModelWithProjection(
                _clip_config(size.sdxl["text_encoder_2"])
            ),
        }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    tokenizers = {"tokenizer": _clip_tokenizer(), "tokenizer_2": _clip_tokenizer()}
    StableDiffusionXLPipeline(
        **parts, **tokenizers, scheduler=scheduler, add_watermarker=False
    ).save_pretrained(folder)


def make_sd3(size: Size, folder: Path, device: str) -> None:
    """Write Stable Diffusion 3.5 medium, T5 included, with random weights in diffusers' layout."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

    with _drawn_on(device, size.dtype):
        parts = {
            "transformer": SD3Transformer2DModel(**size.sd3["transformer"]),
            "vae": AutoencoderKL(**VAE, **size.sd3["vae"]),
            **{
                name: CLIPTextModelWithProjection(_clip_config(size.sd3[name]))
                for name in ("text_encoder", "text_encoder_2")
            },
            "text_encoder_3": T5EncoderModel(
                T5Config(vocab_size=T5_VOCABULARY, **size.sd3["text_encoder_3"])
            ),
        }
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    StableDiffusion3Pipeline(
        **parts,
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        tokenizer_3=T5Tokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)]),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)


def _clip_config(options: dict[str, Any]) -> Any:
    from transformers import CLIPTextConfig

    words = _clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        max_position_embeddings=CLIP_TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **options,
    )


def _clip_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_TOKENS)


@contextmanager
def _drawn_on(device: str, dtype: str) -> Iterator[None]:
    """New weights are drawn on the device, in the dtype, by each module's own initialisation."""
    import torch

    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
