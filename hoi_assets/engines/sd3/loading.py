"""Loads Stable Diffusion 3 and 3.5 pipelines, with or without T5."""

from pathlib import Path
from typing import Any

from hoi_assets.engines.diffusion_pipeline import PromptedPipeline, load_pipeline
from hoi_assets.engines.pipeline_files import (
    check_end_token,
    check_files,
    check_sides,
    naming_errors,
    quantized,
    read_index,
    read_limit,
    read_options,
    read_part,
    read_tokenizer,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader, encoder_columns
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

SD3_PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
PROMPT_COLUMNS = encoder_columns(
    TEXT_ENCODERS, "null for an encoder that the model lacks and for an image endpoint's image"
)
T5_PARTS = ("text_encoder_3", "tokenizer_3")
# As in the published runs of DetailScribe; padding included.
T5_TOKENS = 512
# Without T5 the pipeline attends to zeros in its place; the tiny weights are trained with one token
# of them, the fewest it takes. Models trained with T5 want `max_sequence_length`.
TOKENS_WITHOUT_T5 = 1


class LoadedSD3(PromptedPipeline):
    """A Stable Diffusion 3 pipeline in memory: `diffusers.StableDiffusion3Pipeline`."""

    @property
    def denoiser(self) -> Any:
        """The transformer."""
        return self.pipe.transformer

    @property
    def max_sequence_length(self) -> int:
        """Number of tokens in T5's part of a text's embeddings."""
        given = self.ref.max_sequence_length
        if given is not None:
            return given
        return TOKENS_WITHOUT_T5 if self.pipe.text_encoder_3 is None else T5_TOKENS

    @property
    def clip_limit(self) -> int:
        """Of both CLIPs: the pipeline pads and cuts by the first one's."""
        return int(self.pipe.tokenizer_max_length)

    @property
    def tail_tokens(self) -> int:
        """T5's tokens, or the zeros in their place."""
        return self.max_sequence_length

    def _encode(self, text: str) -> tuple[Any, Any]:
        import torch

        embeds, _, pooled, _ = self.pipe.encode_prompt(
            text,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        if self.chunks(text) == 1:
            return embeds, pooled
        clip, t5 = embeds[:, : self.clip_limit], embeds[:, self.clip_limit :]
        chunked = self._clip_embeds(text, clip)
        # CLIP's embeddings are narrower than T5's: zeros fill the rest, as in the pipeline.
        chunked = torch.nn.functional.pad(chunked, (0, embeds.shape[-1] - chunked.shape[-1]))
        return torch.cat([chunked, t5], dim=1), pooled

    def encode_negative(self, text: str) -> tuple[Any, Any]:
        """Embeddings of a negative prompt, as the pipeline makes them; "" is encoded like any."""
        return self.encode(text)


def load_sd3(ref: ModelRef, device: str = "cpu") -> LoadedSD3:
    """Load a Stable Diffusion 3 or 3.5 pipeline, or return the one in the model cache.

    Weights are read from safetensors only; code that comes with a model is never run. T5 is read
    where the model has one.

    Args:
        device: torch device name, as `engines.device.configure_torch` returns it.

    Raises:
        HoiError: missing folder or file, truncated or wrongly shaped weights, parts that do not
            fit each other, a hub repository without a pinned revision or out of reach.
    """
    return load_pipeline(LoadedSD3, ref, device, _read)


def sd3_text_reader(ref: ModelRef) -> TextReader:
    """What the text encoders of a Stable Diffusion 3 pipeline read of a prompt."""

    def load() -> list[TextEncoder]:
        first, second = (read_tokenizer(ref, part) for part in ("tokenizer", "tokenizer_2"))
        # The pipeline cuts for both CLIPs by the first one's limit.
        limit = read_limit(ref, int(first.model_max_length))
        found = [TextEncoder(TEXT_ENCODERS[0], first, limit)]
        found += [TextEncoder(TEXT_ENCODERS[1], second, limit)]
        if _has_t5(ref):
            t5 = ref.max_sequence_length or T5_TOKENS
            found += [TextEncoder(TEXT_ENCODERS[2], read_tokenizer(ref, T5_PARTS[1]), t5)]
        return found

    return TextReader("sd3", model_digest(ref), load)


def _has_t5(ref: ModelRef) -> bool:
    return (read_index(ref).get(T5_PARTS[0]) or [None])[0] is not None


def _read(ref: ModelRef, folder: Path | None) -> Any:
    from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, T5EncoderModel

    if folder is not None:
        check_files(folder, SD3_PARTS, ref.variant)
    where, options = str(folder or ref.source), read_options(ref)
    classes = {
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    # The library demands T5 unless it is passed as None.
    absent: dict[str, None] = dict.fromkeys(T5_PARTS)
    if _has_t5(ref):
        if folder is not None:
            check_files(folder, T5_PARTS, ref.variant)
        classes["text_encoder_3"] = T5EncoderModel
        absent = {}
    parts = {
        name: read_part(cls, ref, name, **quantized(ref, name)) for name, cls in classes.items()
    }
    with naming_errors(where, where):
        pipe = StableDiffusion3Pipeline.from_pretrained(where, **parts, **absent, **options)
    _check_parts_fit(pipe, where)
    return pipe


def _check_parts_fit(pipe: Any, where: str) -> None:
    transformer, vae = pipe.transformer.config, pipe.vae.config
    text, text_2 = pipe.text_encoder.config, pipe.text_encoder_2.config
    joined = text.hidden_size + text_2.hidden_size
    width = joined if pipe.text_encoder_3 is None else pipe.text_encoder_3.config.d_model
    if pipe.text_encoder_3 is None and transformer.joint_attention_dim > joined:
        width = transformer.joint_attention_dim  # trained with T5, run without
    check_sides(
        {
            "transformer.joint_attention_dim against the text encoders' hidden sizes": (
                transformer.joint_attention_dim,
                width,
            ),
            "transformer.pooled_projection_dim against both text encoders' projection_dim": (
                transformer.pooled_projection_dim,
                text.projection_dim + text_2.projection_dim,
            ),
            "transformer.in_channels against vae.latent_channels": (
                transformer.in_channels,
                vae.latent_channels,
            ),
        },
        where,
    )
    if vae.shift_factor is None:
        raise HoiError(
            f"{where}/vae: shift_factor is not set, and Stable Diffusion 3 adds it to its latents",
            "set shift_factor in its config.json (0.0 where the latents' mean is 0)",
        )
    check_end_token(pipe, 1, where)
    check_end_token(pipe, 2, where)
