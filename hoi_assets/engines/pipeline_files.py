"""Reads the files of diffusion pipelines, and names what is wrong with them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hoi_assets.engines.long_prompts import clip_chunks, token_limit
from hoi_assets.engines.pretrained import meta_device
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, restore_remedy
from hoi_assets.store.weights import local_folder

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
# The large parts of Stable Diffusion 3; the others lose more than they save.
QUANTIZED_PARTS = ("transformer", "text_encoder_3")
WEIGHT_NAMES = dict.fromkeys(("unet", "vae", "transformer"), "diffusion_pytorch_model")


def check_files(folder: Path, parts: Sequence[str], variant: str | None = None) -> None:
    """Refuse a pipeline's folder with a missing file, broken JSON or truncated weights.

    The libraries silently replace a missing file by defaults.

    Args:
        variant: of the weight files; a part without it is read from its plain files.

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
            stem = WEIGHT_NAMES.get(part, "model")
            weights = sorted((folder / part).glob("*.safetensors"))
            plain = [folder / part / f"{stem}.safetensors{end}" for end in ("", ".index.json")]
            if not weights:
                wanted.append(plain[0])
            elif variant is None and not any(path.is_file() for path in plain):
                raise HoiError(
                    f"{folder / part} holds {weights[0].name}, and no {plain[0].name}",
                    "set the model's `variant` in the profile, e.g. fp16",
                )
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


def chunk_counter(ref: ModelRef) -> Callable[..., int]:
    """A function of texts: in how many chunks the longest is encoded (`long_prompts`).

    It needs the model's tokenizer alone.

    Raises:
        HoiError: that cannot be read.
    """
    if ref.long_prompts == "cut":
        return lambda *texts: 1
    tokenizer = read_tokenizer(ref, "tokenizer")
    limit = int(tokenizer.model_max_length)
    return lambda *texts: max(len(clip_chunks(tokenizer, text, limit)) for text in texts)


def read_limit(ref: ModelRef, limit: int) -> int:
    """Most tokens of a prompt that CLIP reads of it, in chunks where the profile says so."""
    return limit if ref.long_prompts == "cut" else token_limit(limit)


def _place(ref: ModelRef) -> dict[str, Any]:
    if local_folder(ref) is not None:
        return {"local_files_only": True}
    return {"revision": ref.revision}


def read_options(ref: ModelRef) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `ref`: its dtype, safetensors only, pinned or local."""
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, ref.dtype), "use_safetensors": True}
    return options | _place(ref)


def quantized(ref: ModelRef, name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a part that is read in 4 bits; else none.

    Raises:
        HoiError: bitsandbytes is not installed, or there is no GPU.
    """
    if ref.quantization == "none" or name not in QUANTIZED_PARTS:
        return {}
    if find_spec("bitsandbytes") is None:
        raise HoiError(
            f"model {ref.source}: quantization {ref.quantization} needs the package bitsandbytes, "
            "which is not installed",
            "pip install 'hoi-assets[quantization]', or set `quantization: none`",
        )
    import diffusers
    import torch
    import transformers

    if not torch.cuda.is_available():
        raise HoiError(
            f"model {ref.source}: quantization {ref.quantization} needs a GPU, and torch sees none",
            "run where there is one, or set `quantization: none`",
        )
    library = transformers if name.startswith("text") else diffusers
    config = library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, ref.dtype),
    )
    return {"quantization_config": config}


def read_part(cls: Any, ref: ModelRef, name: str, **options: Any) -> Any:
    """One model of a pipeline, from the files of the `variant` where it has them.

    Args:
        options: of `from_pretrained`, besides `read_options`.

    Raises:
        HoiError: it cannot be read, or its weights do not match its configuration.
    """
    where = str(local_folder(ref) or ref.source)
    options = read_options(ref) | {"subfolder": name, "output_loading_info": True} | options
    options |= meta_device()
    if name.startswith("text"):
        options["ignore_mismatched_sizes"] = True
    with naming_errors(f"{where}/{name}", where):
        try:
            part, info = cls.from_pretrained(where, variant=ref.variant, **options)
        except OSError:
            if ref.variant is None:
                raise
            part, info = cls.from_pretrained(where, **options)
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
