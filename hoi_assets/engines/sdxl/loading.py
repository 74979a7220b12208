"""Loads SDXL pipelines, each once per process, and says exactly what is wrong when it cannot."""

import json
import platform
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.weights import model_digest, weights_folder

REMEDY = (
    "restore the folder with `git checkout -- {folder}`, make it with `make weights`, "
    "or name another model under `models` of the profile"
)
SDXL_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
WEIGHT_NAMES = dict.fromkeys(("unet", "vae", "transformer"), "diffusion_pytorch_model")
MAX_TEXTS_KEPT = 1024

_loaded: dict[tuple[str, str], "Loaded"] = {}
_reads: Counter[str] = Counter()


@dataclass
class Loaded:
    """An SDXL pipeline in memory.

    Attributes:
        pipe: `diffusers.StableDiffusionXLPipeline`, in eval mode, without an active adapter.
        digest: hash of weights, configuration and dtype (64 hex digits).
        ref: the entry of the profile it was loaded from.
        device: torch device name.
        adapters: LoRA digest -> adapter name, for LoRAs that are in memory.
    """

    pipe: Any
    digest: str
    ref: ModelRef
    device: str
    adapters: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    _texts: "OrderedDict[str, tuple[Any, Any]]" = field(default_factory=OrderedDict)

    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "peft")

    @property
    def denoiser(self) -> Any:
        """The UNet."""
        return self.pipe.unet

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the denoiser was trained on."""
        return int(self.denoiser.config.sample_size) * int(self.pipe.vae_scale_factor)

    def environment(self, batch_size: int) -> dict[str, Any]:
        """What bits depend on beside the row: same environment, same bits; else within a
        tolerance."""
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
        """Embeddings of one text: (1, tokens, width) and pooled (1, width).

        A text is encoded alone, so that its embedding does not depend on its neighbours, and once.
        """
        import torch

        if text not in self._texts:
            with torch.no_grad():
                self._texts[text] = self._encode(text)
            while len(self._texts) > MAX_TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(text)
        return self._texts[text]

    def _encode(self, text: str) -> tuple[Any, Any]:
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            text, device=self.device, do_classifier_free_guidance=False
        )
        return embeds, pooled

    def encode_negative(self, text: str) -> tuple[Any, Any]:
        """Embeddings of a negative prompt; "" means none, which is what the pipeline means by it:
        zeros where `force_zeros_for_empty_prompt` is set, else the encoded empty text."""
        import torch

        embeds, pooled = self.encode(text)
        if not text and self.pipe.config.force_zeros_for_empty_prompt:
            return torch.zeros_like(embeds), torch.zeros_like(pooled)
        return embeds, pooled

    def forget_adapters(self) -> None:
        """Remove every LoRA from memory: the UNet is the base again, bit for bit."""
        self.pipe.unload_lora_weights()
        self.adapters.clear()


Kind = TypeVar("Kind", bound=Loaded)


def configure(settings: Settings) -> str:
    """Set threads, silence progress bars of libraries, and return the device to use.

    Raises:
        HoiError: `device: cuda` without a usable GPU.
    """
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(settings.threads)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise HoiError(
            "device is 'cuda' in the profile, but torch sees no GPU",
            "set `device: cpu` (or `auto`), or install a CUDA build of torch and its driver",
        )
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.device


def load_sdxl(ref: ModelRef, device: str = "cpu") -> Loaded:
    """Load an SDXL pipeline, or return the one this process already has.

    Weights are read from safetensors only; code that comes with a model is never run.

    Args:
        device: torch device name, as `configure` returns it.

    Raises:
        HoiError: missing folder or file, truncated or wrongly shaped weights, parts that do not
            fit each other, a hub repository without a pinned revision or out of reach.
    """
    return load_once(Loaded, ref, device, _read)


def load_once(
    kind: type[Kind], ref: ModelRef, device: str, read: Callable[[ModelRef, Path | None], Any]
) -> Kind:
    """The pipeline of `ref` that this process already has, else the one that `read` gives.

    Args:
        read: takes `ref` and its folder (None: a hub repository), returns a checked pipeline.
    """
    import torch

    key = (model_digest(ref), device)
    found = _loaded.get(key)
    if not isinstance(found, kind):
        pipe = read(ref, weights_folder(ref))
        pipe.set_progress_bar_config(disable=True)
        pipe.to(device)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        _reads[ref.source] += 1
        found = _loaded[key] = kind(pipe, key[0], ref, device)
    return found


def reads() -> dict[str, int]:
    """How often this process read each model from disk: source -> number."""
    return dict(_reads)


def unload_all() -> None:
    """Drop every loaded pipeline from memory."""
    _loaded.clear()


def check_files(folder: Path, parts: Sequence[str]) -> None:
    """Refuse a pipeline's folder that lacks a file of `parts`, which the libraries would replace by
    defaults in silence, or holds broken JSON or truncated weights.

    Raises:
        HoiError: names the file.
    """
    from safetensors import SafetensorError, safe_open

    wanted = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    for part in parts:
        if part.startswith("tokenizer"):
            if not any((folder / part / name).is_file() for name in TOKENIZER_FILES):
                wanted.append(folder / part / TOKENIZER_FILES[0])
        else:
            wanted.append(folder / part / "config.json")
            if not list((folder / part).glob("*.safetensors")):
                wanted.append(folder / part / f"{WEIGHT_NAMES.get(part, 'model')}.safetensors")
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise HoiError(f"model file missing: {missing[0]}", REMEDY.format(folder=folder))
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise HoiError(
                f"{path} is not valid JSON: {error}", REMEDY.format(folder=folder)
            ) from None
    for path in folder.rglob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise HoiError(
                f"{path} ({path.stat().st_size} bytes) is truncated or not safetensors: {error}",
                REMEDY.format(folder=folder),
            ) from None


def _read(ref: ModelRef, folder: Path | None) -> Any:
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if folder is not None:
        check_files(folder, SDXL_PARTS)
    where, options = str(folder or ref.source), reading_options(ref)
    parts = {
        name: read_part(cls, where, name, options)
        for name, cls in (
            ("unet", UNet2DConditionModel),
            ("vae", AutoencoderKL),
            ("text_encoder", CLIPTextModel),
            ("text_encoder_2", CLIPTextModelWithProjection),
        )
    }
    with named(where, where):
        pipe = StableDiffusionXLPipeline.from_pretrained(
            where, add_watermarker=False, **parts, **options
        )
    _check_parts_fit(pipe, where)
    return pipe


def reading_options(ref: ModelRef) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `ref`: its dtype, safetensors only, nothing unpinned."""
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, ref.dtype), "use_safetensors": True}
    if ref.revision is None:
        return options | {"local_files_only": True}
    return options | {"revision": ref.revision}


def read_part(cls: Any, where: str, name: str, options: dict[str, Any]) -> Any:
    """One model of a pipeline.

    Raises:
        HoiError: it cannot be read, or its weights are not those that its configuration asks for.
    """
    lenient = {"ignore_mismatched_sizes": True} if name.startswith("text") else {}
    with named(f"{where}/{name}", where):
        part, info = cls.from_pretrained(
            where, subfolder=name, output_loading_info=True, **options, **lenient
        )
    for problem in ("missing_keys", "mismatched_keys"):
        # The libraries fill these with random numbers and go on.
        if info[problem]:
            first = sorted(str(key) for key in info[problem])[0]
            raise HoiError(
                f"{where}/{name}: weights do not match config.json: "
                f"{len(info[problem])} {problem.replace('_', ' ')}, first {first}",
                REMEDY.format(folder=where),
            )
    return part


@contextmanager
def named(place: str, folder: str) -> Iterator[None]:
    """Turn whatever a library raises while reading `place` into a HoiError."""
    try:
        yield
    except HoiError:
        raise
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise HoiError(
            f"{place} cannot be loaded: {type(error).__name__}: {first_line}",
            REMEDY.format(folder=folder),
        ) from error


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


def check_sides(sides: Mapping[str, tuple[int, int]], where: str) -> None:
    """Refuse parts that do not fit: each name of a joint has the numbers on its two sides."""
    for name, (have, want) in sides.items():
        if have != want:
            raise HoiError(
                f"{where}: parts do not fit: {name}: {have} and {want}",
                REMEDY.format(folder=where),
            )


def check_end_token(pipe: Any, number: int, where: str) -> None:
    """Refuse a text encoder (`number` as in `text_encoder_2`; 1 has none) that pools every text
    alike."""
    part = "text_encoder" if number == 1 else f"text_encoder_{number}"
    marker = pipe.components[part].config.eos_token_id
    end = pipe.components[part.replace("text_encoder", "tokenizer")].eos_token_id
    # 2 is CLIP's old marker for "the largest id"; any other stranger pools every text alike.
    if marker not in (2, end):
        raise HoiError(
            f"{where}/{part}: eos_token_id is {marker}, but the tokenizer's is {end}: "
            "every prompt would get the same pooled embedding",
            "set eos_token_id in its config.json, then train the model anew with `make weights`",
        )
