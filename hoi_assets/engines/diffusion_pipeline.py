"""What SDXL and Stable Diffusion 3 pipelines have in common.

The pipeline in memory, its prompt embeddings and decoding; reading it, with errors that name the
file.
"""

import json
import platform
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image

from hoi_assets.engines.model_cache import load_cached, move_to_device
from hoi_assets.engines.pretrained import loads_shapes_only, meta_device
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, restore_remedy
from hoi_assets.store.weights import local_folder, model_digest, model_fingerprint

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
WEIGHT_NAMES = dict.fromkeys(("unet", "vae", "transformer"), "diffusion_pytorch_model")
MAX_CACHED_PROMPTS = 1024
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
    """

    pipe: Any
    digest: str
    ref: ModelRef
    device: str
    _embeddings: "OrderedDict[str, tuple[Any, Any]]" = field(default_factory=OrderedDict)

    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers")

    @property
    @abstractmethod
    def denoiser(self) -> Any:
        """The UNet or transformer."""

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        import torch

        parts = self.pipe.components.values()
        return tuple(part for part in parts if isinstance(part, torch.nn.Module))

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

    def encode(self, text: str) -> tuple[Any, Any]:
        """Embeddings of one prompt: (1, tokens, width) and pooled (1, width); cached.

        A prompt is encoded alone, so that its embeddings do not depend on a batch's other prompts.
        """
        import torch

        if text not in self._embeddings:
            with torch.no_grad():
                self._embeddings[text] = self._encode(text)
            while len(self._embeddings) > MAX_CACHED_PROMPTS:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(text)
        return self._embeddings[text]

    @abstractmethod
    def _encode(self, text: str) -> tuple[Any, Any]: ...

    @abstractmethod
    def encode_negative(self, text: str) -> tuple[Any, Any]:
        """Embeddings of a negative prompt, as the pipeline makes them; "" means none."""


def prompt_embeddings(
    loaded: LoadedPipeline,
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

    embeds, pooled = stack([None if t is None else loaded.encode(t) for t in prompts])
    named = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if guided:
        negative = stack([None if t is None else loaded.encode_negative(t) for t in negatives])
        named["negative_prompt_embeds"], named["negative_pooled_prompt_embeds"] = negative
    return named


def set_decode_slicing(loaded: LoadedPipeline, width: int, height: int) -> None:
    """Let the VAE decode large images one at a time, small ones as a batch; by size alone."""
    loaded.pipe.vae.use_slicing = width * height >= SLICED_DECODE_PIXELS


def tensor_to_images(images: Any) -> list[Image.Image | None]:
    """Images of a tensor (n, 3, height, width) in [0, 1]; None where it is not finite."""
    finite = images.isfinite().flatten(1).all(dim=1).tolist()
    pixels = (images.float().nan_to_num() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [
        Image.fromarray(picture) if good else None
        for picture, good in zip(pixels, finite, strict=True)
    ]


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
        move_to_device(loaded.modules, device)
        for module in loaded.modules:
            module.requires_grad_(False).eval()
        return loaded

    return load_cached(kind.__name__, ref, device, load)


def check_files(folder: Path, parts: Sequence[str]) -> None:
    """Refuse a pipeline's folder with a missing file, broken JSON or truncated weights.

    The libraries silently replace a missing file by defaults.

    Raises:
        HoiError: names the file.
    """
    from safetensors import SafetensorError, safe_open

    wanted = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    for part in parts:
        if part.startswith("tokenizer"):
            wanted.append(_tokenizer_file(folder / part))
        else:
            wanted.append(folder / part / "config.json")
            if not list((folder / part).glob("*.safetensors")):
                wanted.append(folder / part / f"{WEIGHT_NAMES.get(part, 'model')}.safetensors")
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise HoiError(f"model file missing: {missing[0]}", _remedy(folder))
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise HoiError(f"{path} is not valid JSON: {error}", _remedy(folder)) from None
    for path in folder.rglob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise HoiError(
                f"{path} ({path.stat().st_size} bytes) is truncated or not safetensors: {error}",
                _remedy(folder),
            ) from None


def _tokenizer_file(folder: Path) -> Path:
    """The file of a tokenizer; the first name where there is none."""
    files = [folder / name for name in TOKENIZER_FILES]
    return next((file for file in files if file.is_file()), files[0])


def read_index(ref: ModelRef) -> dict[str, Any]:
    """The pipeline's `model_index.json`: by part its library and class.

    Raises:
        HoiError: it cannot be read.
    """
    folder = local_folder(ref)
    where, name = str(folder or ref.source), "model_index.json"
    with naming_errors(f"{where}/{name}", where):
        if folder is None:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(ref.source, name, revision=ref.revision))
        else:
            path = folder / name
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_tokenizer(ref: ModelRef, part: str) -> Any:
    """A tokenizer of the pipeline, of the class that the pipeline itself loads it with.

    Args:
        part: as in diffusers, e.g. `tokenizer_2`.

    Raises:
        HoiError: it cannot be read.
    """
    import transformers

    folder = local_folder(ref)
    where = str(folder or ref.source)
    # The library makes an empty tokenizer of a folder without files.
    if folder is not None and not (file := _tokenizer_file(folder / part)).is_file():
        raise HoiError(f"model file missing: {file}", _remedy(folder))
    with naming_errors(f"{where}/{part}", where):
        cls = getattr(transformers, read_index(ref)[part][1])
        return cls.from_pretrained(where, subfolder=part, **_place(ref))


def _place(ref: ModelRef) -> dict[str, Any]:
    if local_folder(ref) is not None:
        return {"local_files_only": True}
    return {"revision": ref.revision}


def read_options(ref: ModelRef) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `ref`: its dtype, safetensors only, pinned or local."""
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, ref.dtype), "use_safetensors": True}
    return options | _place(ref)


def read_part(cls: Any, where: str, name: str, options: dict[str, Any]) -> Any:
    """One model of a pipeline.

    Raises:
        HoiError: it cannot be read, or its weights do not match its configuration.
    """
    lenient = {"ignore_mismatched_sizes": True} if name.startswith("text") else {}
    with naming_errors(f"{where}/{name}", where):
        part, info = cls.from_pretrained(
            where,
            subfolder=name,
            output_loading_info=True,
            **options,
            **lenient,
            **meta_device(),
        )
    for problem in ("missing_keys", "mismatched_keys"):
        # The libraries fill these with random numbers and go on.
        if info[problem]:
            first = sorted(str(key) for key in info[problem])[0]
            raise HoiError(
                f"{where}/{name}: weights do not match config.json: "
                f"{len(info[problem])} {problem.replace('_', ' ')}, first {first}",
                _remedy(where),
            )
    return part


def _remedy(folder: Path | str) -> str:
    restored = restore_remedy(str(folder), "weights")
    return f"{restored}; or name another model under `models` of the profile"


@contextmanager
def naming_errors(place: str, folder: str) -> Iterator[None]:
    """Turn whatever a library raises while reading `place` into a HoiError that names it."""
    try:
        yield
    except HoiError:
        raise
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise HoiError(
            f"{place} cannot be loaded: {type(error).__name__}: {first_line}",
            _remedy(folder),
        ) from error


def check_sides(sides: Mapping[str, tuple[int, int]], where: str) -> None:
    """Refuse parts whose widths differ.

    Args:
        sides: by the name of a connection, the widths on its two sides.
    """
    for name, (have, want) in sides.items():
        if have != want:
            raise HoiError(
                f"{where}: parts do not fit: {name}: {have} and {want}",
                _remedy(where),
            )


def check_end_token(pipe: Any, number: int, where: str) -> None:
    """Refuse a text encoder that gives every text the same pooled embedding.

    Args:
        number: as in `text_encoder_2`; 1 is `text_encoder`.
    """
    part = "text_encoder" if number == 1 else f"text_encoder_{number}"
    marker = pipe.components[part].config.eos_token_id
    end = pipe.components[part.replace("text_encoder", "tokenizer")].eos_token_id
    # 2 is CLIP's old marker for "the largest id"; any other id is never found in a text.
    if marker not in (2, end):
        raise HoiError(
            f"{where}/{part}: eos_token_id is {marker}, but the tokenizer's is {end}: "
            "every prompt would get the same pooled embedding",
            "set eos_token_id in its config.json; a model trained so is to be trained again",
        )
