"""What SDXL and Stable Diffusion 3 pipelines have in common.

The pipeline in memory, its prompt embeddings and decoding; `pipeline_files` reads it.
"""

import platform
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image

from hoi_assets.engines.long_prompts import (
    clip_chunks,
    encode_chunks,
    lengthened,
)
from hoi_assets.engines.model_cache import load_cached, move_to_device
from hoi_assets.engines.out_of_memory import SMALLER_MODEL, naming_out_of_memory
from hoi_assets.engines.pretrained import loads_shapes_only
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import local_folder, model_digest, model_fingerprint

MAX_CACHED_PROMPTS = 1024
# On the device; a prompt with T5's part takes about 5 MB.
MAX_CACHED_BYTES = 512 << 20
# Batches, sizes and lengths of prompts that one process compiles a denoiser for.
MOST_SHAPES = 64
# From this size on the VAE decodes one image at a time, to bound memory.
SLICED_DECODE_PIXELS = 512 * 512


@dataclass
class LoadedPipeline(ABC):
    """A diffusion pipeline in memory, in eval mode.

    Attributes:
        pipe: the diffusers pipeline.
        digest: hash of weights, configuration and dtype (64 hex digits).
        ref: the entry of the profile it was loaded from.
        device: torch device name.
        batch_limits: by kind of work, width and height the largest batch where a larger one did
            not fit.
    """

    pipe: Any
    digest: str
    ref: ModelRef
    device: str
    batch_limits: MutableMapping[tuple[str, int, int], int] = field(default_factory=dict)

    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers")

    @property
    @abstractmethod
    def denoiser(self) -> Any:
        """The UNet or transformer."""

    @property
    def parts(self) -> tuple[Any, ...]:
        """The networks of the pipeline."""
        import torch

        parts = self.pipe.components.values()
        return tuple(part for part in parts if isinstance(part, torch.nn.Module))

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights that stay on the device, as the model cache counts them."""
        return self.parts if self.ref.offload == "none" else ()

    def place(self) -> None:
        """Move the weights to the device, or have them moved there when they are needed."""
        if self.ref.offload == "none":
            move_to_device(self.parts, self.device)
            return
        move_to_device(self.parts, "cpu", make_room=False)
        if self.ref.offload == "model":
            self.pipe.enable_model_cpu_offload(device=self.device)
            return
        import torch
        from accelerate import cpu_offload

        # As `enable_sequential_cpu_offload`, which does not work on the CPU.
        for part in self.parts:
            cpu_offload(part, torch.device(self.device), offload_buffers=bool(part._parameters))

    @property
    def resolution(self) -> int:
        """Side in pixels of the images that the denoiser was trained on."""
        return int(self.denoiser.config.sample_size) * int(self.pipe.vae_scale_factor)

    def environment(self, batch_size: int) -> dict[str, Any]:
        """What an image's bits depend on besides its specification.

        In the same environment the bits are equal, elsewhere within a tolerance.
        """
        import torch

        on_gpu = self.device.startswith("cuda")
        return {
            "batch_size": batch_size,
            "dtype": str(self.denoiser.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **{name: import_module(name).__version__ for name in self.LIBRARIES},
        }


@dataclass
class PromptedPipeline(LoadedPipeline):
    """A pipeline whose prompts are encoded here, once each: Stable Diffusion XL or 3."""

    _embeddings: "OrderedDict[tuple[str, str], tuple[Any, Any]]" = field(
        default_factory=OrderedDict
    )
    # Name of the adapter that changes the text encoders; empty: they are the model's own.
    text_adapter: str = ""

    def encode(self, text: str) -> tuple[Any, Any]:
        """Embeddings of one prompt: (1, tokens, width) and pooled (1, width); cached.

        A prompt is encoded alone, so that its embeddings do not depend on a batch's other prompts.
        """
        key = (self.text_adapter, text)
        if key not in self._embeddings:
            with inference(self):
                self._embeddings[key] = self._encode(text)
            held = sum(part.nbytes for pair in self._embeddings.values() for part in pair)
            while len(self._embeddings) > 1 and (
                len(self._embeddings) > MAX_CACHED_PROMPTS or held > MAX_CACHED_BYTES
            ):
                _, oldest = self._embeddings.popitem(last=False)
                held -= sum(part.nbytes for part in oldest)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]

    def encode_anew(self, text: str) -> tuple[Any, Any]:
        """As `encode`, but not cached, and with gradients where they are on."""
        return self._encode(text)

    @abstractmethod
    def _encode(self, text: str) -> tuple[Any, Any]: ...

    @property
    @abstractmethod
    def clip_limit(self) -> int:
        """Most tokens that CLIP reads at once, special tokens included."""

    @property
    def tail_tokens(self) -> int:
        """Tokens at the end of a prompt's embeddings that are not CLIP's."""
        return 0

    def chunks(self, *texts: str) -> int:
        """In how many chunks the longest text is encoded (`long_prompts`)."""
        if self.ref.long_prompts == "cut":
            return 1
        tokenizer, limit = self.pipe.tokenizer, self.clip_limit
        return max(len(clip_chunks(tokenizer, text, limit)) for text in texts)

    def _clip_embeds(self, text: str, cut: Any) -> Any:
        """Embeddings (1, chunks * limit, width) of CLIP's part of a text.

        Args:
            cut: the same of its beginning, as the pipeline gives it.
        """
        if self.chunks(text) == 1:
            return cut
        pipe = self.pipe
        encoders = [(pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)]
        return encode_chunks(text, encoders, self.clip_limit, self.device)

    @abstractmethod
    def encode_negative(self, text: str) -> tuple[Any, Any]:
        """Embeddings of a negative prompt, as the pipeline makes them; "" means none."""


def prompt_embeddings(
    loaded: PromptedPipeline,
    prompts: Sequence[str | None],
    negatives: Sequence[str | None],
    guided: bool,
) -> dict[str, Any]:
    """The pipeline's embedding arguments for one batch; None is an empty slot (zeros).

    Args:
        guided: whether classifier-free guidance is on, so that negatives are needed.
    """
    import torch

    def stack(pairs: list[tuple[Any, Any] | None]) -> tuple[Any, Any]:
        like = next(pair for pair in pairs if pair is not None)
        filled = [pair or tuple(torch.zeros_like(part) for part in like) for pair in pairs]
        return torch.cat([pair[0] for pair in filled]), torch.cat([pair[1] for pair in filled])

    positive = [None if t is None else loaded.encode(t) for t in prompts]
    against = [None if t is None or not guided else loaded.encode_negative(t) for t in negatives]
    tokens = max(pair[0].shape[1] for pair in (*positive, *against) if pair is not None)

    def of_one_length(pair: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
        if pair is None or pair[0].shape[1] == tokens:
            return pair
        chunk = loaded.encode("")[0][:, : loaded.clip_limit]
        return lengthened(pair[0], tokens, chunk, loaded.tail_tokens), pair[1]

    embeds, pooled = stack([of_one_length(pair) for pair in positive])
    named = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if guided:
        negative = stack([of_one_length(pair) for pair in against])
        named["negative_prompt_embeds"], named["negative_pooled_prompt_embeds"] = negative
    return named


def set_decode_slicing(loaded: LoadedPipeline, width: int, height: int) -> None:
    """Let the VAE decode large images one at a time, small ones as a batch; by size alone."""
    loaded.pipe.vae.use_slicing = width * height >= SLICED_DECODE_PIXELS


@contextmanager
def inference(loaded: LoadedPipeline) -> Iterator[None]:
    """Compute without gradients, with the matrix products that `tf32` says, and restore the VAE's
    dtype."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if loaded.ref.tf32 else "highest")
    try:
        with keeping_vae_dtype(loaded), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def upcast_vae(loaded: LoadedPipeline) -> Iterator[None]:
    """Compute with the VAE in float32 where it overflows in float16 (`force_upcast`), as SDXL's
    does; the pipelines do the same when they decode."""
    import torch

    vae = loaded.pipe.vae
    with keeping_vae_dtype(loaded):
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(torch.float32)
        yield


@contextmanager
def keeping_vae_dtype(loaded: LoadedPipeline) -> Iterator[None]:
    """Restore the VAE's dtype, which a pipeline leaves upcast when it fails while it decodes."""
    vae, dtype = loaded.pipe.vae, loaded.pipe.vae.dtype
    try:
        yield
    finally:
        if vae.dtype != dtype:
            vae.to(dtype)


def tensor_to_images(images: Any) -> list[Image.Image | None]:
    """Images of a tensor (n, 3, height, width) in [0, 1]; None where it is not finite."""
    finite = images.isfinite().flatten(1).all(dim=1).tolist()
    pixels = (images.float().nan_to_num() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [
        Image.fromarray(picture) if good else None
        for picture, good in zip(pixels, finite, strict=True)
    ]


def _compile(denoiser: Any) -> None:
    """Have a network compiled when it is first called, once for each shape of its inputs."""
    from torch._dynamo import config

    # Beyond its limit torch goes on without compiling, and says nothing: other bits.
    config.recompile_limit = max(config.recompile_limit, MOST_SHAPES)
    # A kernel of all shapes would replace those of one shape: bits would depend on what came first.
    denoiser.compile(dynamic=False)


Pipeline = TypeVar("Pipeline", bound=LoadedPipeline)


def load_pipeline(
    kind: type[Pipeline],
    ref: ModelRef,
    device: str,
    read: Callable[[ModelRef, Path | None], Any],
) -> Pipeline:
    """The pipeline of `ref`, from the model cache or read now.

    Args:
        read: takes `ref` and the folder of its files (None: the hub or its cache), returns a
            checked pipeline.
    """

    def load(ref: ModelRef, device: str) -> Pipeline:
        pipe = read(ref, local_folder(ref))
        pipe.set_progress_bar_config(disable=True)
        # A fingerprint spares reading all weights where only their shapes are looked at.
        digest = model_fingerprint(ref) if loads_shapes_only() else model_digest(ref)
        loaded = kind(pipe, digest, ref, device)
        for module in loaded.parts:
            module.requires_grad_(False).eval()
        if ref.vae_tiling:
            pipe.vae.enable_tiling()
        with naming_out_of_memory(f"model {ref.source}", SMALLER_MODEL):
            loaded.place()
        if ref.torch_compile and not loads_shapes_only():
            _compile(loaded.denoiser)
        return loaded

    # Where the parts wait is no part of the digest, since it changes no picture.
    name = kind.__name__ if ref.offload == "none" else f"{kind.__name__}, offload {ref.offload}"
    return load_cached(name, ref, device, load)
