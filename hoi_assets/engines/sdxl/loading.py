"""Loads SDXL pipelines."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hoi_assets.engines.diffusion_pipeline import PromptedPipeline, load_pipeline
from hoi_assets.engines.pipeline_files import (
    check_end_token,
    check_files,
    check_sides,
    naming_errors,
    read_limit,
    read_options,
    read_part,
    read_tokenizer,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader, encoder_columns
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

SDXL_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
PROMPT_COLUMNS = encoder_columns(TEXT_ENCODERS)


@dataclass
class LoadedSDXL(PromptedPipeline):
    """An SDXL pipeline in memory: `diffusers.StableDiffusionXLPipeline`, without an active adapter.

    Attributes:
        adapters: LoRA digest -> adapter name, for LoRAs that are in memory.
    """

    adapters: "OrderedDict[str, str]" = field(default_factory=OrderedDict)

    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "peft")

    @property
    def denoiser(self) -> Any:
        """The UNet."""
        return self.pipe.unet

    def _encode(self, text: str) -> tuple[Any, Any]:
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            text, device=self.device, do_classifier_free_guidance=False
        )
        return self._clip_embeds(text, embeds), pooled

    @property
    def clip_limit(self) -> int:
        """Of both tokenizers: they have one vocabulary."""
        return int(self.pipe.tokenizer.model_max_length)

    def encode_negative(self, text: str) -> tuple[Any, Any]:
        """Embeddings of a negative prompt, as the pipeline makes them; "" means none.

        None is zeros where `force_zeros_for_empty_prompt` is set, else the encoded empty text.
        """
        import torch

        embeds, pooled = self.encode(text)
        if not text and self.pipe.config.force_zeros_for_empty_prompt:
            return torch.zeros_like(embeds), torch.zeros_like(pooled)
        return embeds, pooled

    def unload_adapters(self) -> None:
        """Remove every LoRA from memory: the model is the base again, bit for bit."""
        self.pipe.unload_lora_weights()
        self.adapters.clear()
        self.text_adapter = ""


def load_sdxl(ref: ModelRef, device: str = "cpu") -> LoadedSDXL:
    """Load an SDXL pipeline, or return the one in the model cache.

    Weights are read from safetensors only; code that comes with a model is never run.

    Args:
        device: torch device name, as `engines.device.configure_torch` returns it.

    Raises:
        HoiError: missing folder or file, truncated or wrongly shaped weights, parts that do not
            fit each other, a hub repository without a pinned revision or out of reach.
    """
    return load_pipeline(LoadedSDXL, ref, device, _read)


def sdxl_text_reader(ref: ModelRef) -> TextReader:
    """What the text encoders of an SDXL pipeline read of a prompt."""

    def load() -> list[TextEncoder]:
        tokenizers = [read_tokenizer(ref, part) for part in ("tokenizer", "tokenizer_2")]
        return [
            TextEncoder(name, tokenizer, read_limit(ref, int(tokenizer.model_max_length)))
            for name, tokenizer in zip(TEXT_ENCODERS, tokenizers, strict=True)
        ]

    return TextReader("sdxl", model_digest(ref), load)


def _read(ref: ModelRef, folder: Path | None) -> Any:
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if folder is not None:
        check_files(folder, SDXL_PARTS, ref.variant)
    where, options = str(folder or ref.source), read_options(ref)
    parts = {
        name: read_part(cls, ref, name)
        for name, cls in (
            ("unet", UNet2DConditionModel),
            ("vae", AutoencoderKL),
            ("text_encoder", CLIPTextModel),
            ("text_encoder_2", CLIPTextModelWithProjection),
        )
    }
    with naming_errors(where, where):
        pipe = StableDiffusionXLPipeline.from_pretrained(
            where, add_watermarker=False, **parts, **options
        )
    _check_parts_fit(pipe, where)
    return pipe


def _check_parts_fit(pipe: Any, where: str) -> None:
    unet, text, text_2 = pipe.unet.config, pipe.text_encoder.config, pipe.text_encoder_2.config
    sides = {
        "unet.cross_attention_dim against both text encoders' hidden_size": (
            unet.cross_attention_dim,
            text.hidden_size + text_2.hidden_size,
        ),
        "unet.in_channels against vae.latent_channels": (
            unet.in_channels,
            pipe.vae.config.latent_channels,
        ),
        "unet.projection_class_embeddings_input_dim against text_encoder_2.projection_dim and "
        "six time ids": (
            unet.projection_class_embeddings_input_dim,
            text_2.projection_dim + 6 * unet.addition_time_embed_dim,
        ),
    }
    check_sides(sides, where)
    check_end_token(pipe, 2, where)
