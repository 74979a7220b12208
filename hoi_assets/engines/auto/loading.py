"""Loads whatever diffusers' `AutoPipelineForText2Image` loads (FLUX, Qwen-Image and others), and
image-editing pipelines (Qwen-Image-Edit, FLUX Kontext)."""

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hoi_assets.engines.auto.picture_processor import (
    WITH_VIDEOS,
    read_picture_processor,
    tell_pictures_from_text,
)
from hoi_assets.engines.diffusion_pipeline import LoadedPipeline, load_pipeline
from hoi_assets.engines.pipeline_files import (
    naming_errors,
    quantized,
    read_index,
    read_options,
    read_part,
    read_tokenizer,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

# Whose classes are loaded; a model that brings code of its own is refused.
LIBRARIES = ("diffusers", "transformers")
TOKENIZERS = {
    "tokenizer": "text_encoder",
    "tokenizer_2": "text_encoder_2",
    "tokenizer_3": "text_encoder_3",
}
# What a pipeline must take besides the prompt to be one that edits, and what it must not: that is
# image-to-image and inpainting, which follow no instruction.
EDITING, NOT_EDITING = "image", ("strength", "mask_image")


@dataclass
class LoadedAutoPipeline(LoadedPipeline):
    """A diffusers pipeline of any class in memory; it encodes its prompts itself.

    Attributes:
        adapters: LoRA digest -> adapter name, for LoRAs that are in memory.
    """

    adapters: "OrderedDict[str, str]" = field(default_factory=OrderedDict)

    @property
    def denoiser(self) -> Any:
        """The transformer or UNet."""
        return getattr(self.pipe, "transformer", None) or self.pipe.unet

    @property
    def takes(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of a call, by name."""
        return inspect.signature(type(self.pipe).__call__).parameters


class LoadedEditor(LoadedAutoPipeline):
    """A pipeline that changes a picture by an instruction."""


def load_text_to_image(ref: ModelRef, device: str = "cpu") -> LoadedAutoPipeline:
    """Load a text-to-image pipeline of any class, or return the one in the model cache.

    Weights are read from safetensors only; code that comes with a model is never run.

    Raises:
        HoiError: missing or misshapen weights, a class that diffusers does not have or that draws
            no image from a text, a hub repository without a pinned revision or out of reach.
    """
    return load_pipeline(LoadedAutoPipeline, ref, device, partial(_read, edits=False))


def load_editor(ref: ModelRef, device: str = "cpu") -> LoadedEditor:
    """Load an image-editing pipeline, or return the one in the model cache. Raises as above."""
    return load_pipeline(LoadedEditor, ref, device, partial(_read, edits=True))


def supports_lora(ref: ModelRef) -> bool:
    """Whether diffusers loads LoRAs into this kind of pipeline.

    Raises:
        HoiError: its index cannot be read, or names a class that diffusers does not have.
    """
    return hasattr(_pipeline_class(ref), "load_lora_weights")


def pipeline_name(ref: ModelRef) -> str:
    """Name of the pipeline's class. Raises as `supports_lora`."""
    return str(_pipeline_class(ref).__name__)


def auto_text_reader(ref: ModelRef, max_sequence_length: int | None = None) -> TextReader:
    """What the text encoders of the pipeline read of a prompt.

    Args:
        max_sequence_length: as the pipeline is called with it; None: its default.
    """

    def load() -> list[TextEncoder]:
        parameter = inspect.signature(_pipeline_class(ref).__call__).parameters
        own = parameter.get("max_sequence_length")
        most = max_sequence_length or (own.default if own is not None else None)
        found = []
        for part, encoder in TOKENIZERS.items():
            if (read_index(ref).get(part) or [None])[0] is None:
                continue
            tokenizer = read_tokenizer(ref, part)
            limit = int(tokenizer.model_max_length)
            if most and not type(tokenizer).__name__.startswith("CLIP"):
                limit = min(limit, int(most))
            found.append(TextEncoder(encoder, tokenizer, limit))
        return found

    return TextReader(f"auto-{max_sequence_length or 'default'}", model_digest(ref), load)


def _pipeline_class(ref: ModelRef) -> Any:
    import diffusers

    name = read_index(ref).get("_class_name")
    cls = getattr(diffusers, str(name), None)
    if not inspect.isclass(cls) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise HoiError(
            f"{ref.source}/model_index.json: no pipeline {name!r} in diffusers "
            f"{diffusers.__version__}",
            "name a model that diffusers loads, or install a diffusers that has the class",
        )
    return cls


def _read(ref: ModelRef, folder: Path | None, edits: bool) -> Any:
    from diffusers import AutoPipelineForText2Image

    where, options = str(folder or ref.source), read_options(ref)
    cls = _pipeline_class(ref)
    takes = inspect.signature(cls.__call__).parameters
    if edits and (EDITING not in takes or any(name in takes for name in NOT_EDITING)):
        raise HoiError(
            f"{where}: {cls.__name__} does not edit a picture by an instruction",
            "name an editing pipeline, such as Qwen-Image-Edit or FLUX.1 Kontext",
        )
    parts = _parts(ref, where)
    with naming_errors(where, where):
        factory = cls if edits else AutoPipelineForText2Image
        pipe = factory.from_pretrained(where, **parts, **options)
    for part in parts.values():
        if type(part).__name__ in WITH_VIDEOS:
            tell_pictures_from_text(pipe.text_encoder, part.image_token_id)
    return pipe


def _parts(ref: ModelRef, where: str) -> dict[str, Any]:
    """The pipeline's models, each checked against its weights.

    Raises:
        HoiError: a part of another library, or weights that are missing or misshapen.
    """
    import torch

    parts = {}
    for name, entry in read_index(ref).items():
        if name.startswith("_") or not isinstance(entry, list) or entry[0] is None:
            continue
        library, class_name = entry
        if library not in LIBRARIES:
            raise HoiError(
                f"{where}/model_index.json: {name} is of {library!r}, which is not loaded",
                f"name a model whose parts are of {' and '.join(LIBRARIES)}",
            )
        if class_name in WITH_VIDEOS:
            parts[name] = read_picture_processor(ref, name, class_name)
            continue
        cls = getattr(import_module(library), class_name, None)
        if inspect.isclass(cls) and issubclass(cls, torch.nn.Module):
            parts[name] = read_part(cls, ref, name, **quantized(ref, name))
    return parts
