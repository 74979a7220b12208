"""What each entry under `models` of a profile is: its loader, and which files of a repository it
needs."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Models

PIPELINE_INDEX = "model_index.json"
IMAGE_REWARD_CHECKPOINT = "ImageReward.pt"
HPSV3_CHECKPOINT = "HPSv3.safetensors"
CONFIGURATION = re.compile(r"[\w-]+\.(?:json|txt|model)")
# Weights under their plain names: no `variant` such as fp16, no other framework's.
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:-\d+-of-\d+)?\.(safetensors|bin)"
    r"(?:\.index\.json)?"
)
# Names of a variant's weights, as the libraries write them and as they did before.
VARIANT_WEIGHTS = (
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.{0}(?:-\d+-of-\d+)?|-\d+-of-\d+\.{0}|(?=\.\w+\.index\.{0}\.json))"
    r"\.(safetensors|bin)(?:\.index\.{0}\.json)?"
)


@dataclass(frozen=True)
class ModelKind:
    """One entry under `models`.

    Attributes:
        title: what it is, in words.
        loader: `module:function`, which takes a ModelRef.
        parts: subfolders of a diffusion pipeline; empty for a model in one folder.
        extra: files in other forms that the loader reads.
        weights: whether its weights are needed; of a tokenizer they are not.
        any_parts: whether it is a diffusion pipeline of any class, with any subfolders.
    """

    title: str
    loader: str
    parts: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    weights: bool = True
    any_parts: bool = False

    def load(self, ref: ModelRef) -> Any:
        """The loaded model; see `pretrained.shapes_only` for a load without numbers."""
        module, _, name = self.loader.partition(":")
        function: Callable[[ModelRef], Any] = getattr(import_module(module), name)
        return function(ref)

    def wanted(self, names: Iterable[str], variant: str | None = None) -> list[str]:
        """Those of a repository's files that the loader reads, sorted.

        Of weights in several forms safetensors are taken, else `.bin`; of a part that has the
        `variant` its files, else those of plain names.
        """
        by_folder: dict[str, list[str]] = {}
        for name in sorted(names):
            folder = PurePosixPath(name).parent.as_posix()
            by_folder.setdefault("" if folder == "." else folder, []).append(name)
        folders: Iterable[str] = (*self.parts, "scheduler") if self.parts else ("",)
        if self.any_parts:
            folders = [folder for folder in by_folder if folder and "/" not in folder]
        found = [name for name in (PIPELINE_INDEX, *self.extra) if name in by_folder.get("", ())]
        for folder in folders:
            found += self._of_folder(by_folder.get(folder, []), variant)
        return sorted(set(found))

    def _of_folder(self, paths: list[str], variant: str | None) -> Iterator[str]:
        named = {path: PurePosixPath(path).name for path in paths}
        weights = _matching(named, WEIGHTS)
        if variant is not None:
            own = re.compile(VARIANT_WEIGHTS.replace("{0}", re.escape(variant)))
            weights = _matching(named, own) or weights
        forms = {match[1] for match in weights.values()}
        form = "safetensors" if "safetensors" in forms else "bin"
        if self.weights:
            yield from (path for path, match in weights.items() if match[1] == form)
        yield from (path for path, name in named.items() if CONFIGURATION.fullmatch(name))


def _matching(named: Mapping[str, str], pattern: re.Pattern[str]) -> dict[str, re.Match[str]]:
    return {path: found for path, name in named.items() if (found := pattern.fullmatch(name))}


_ENGINES = "hoi_assets.engines"
_VQA = partial(ModelKind, loader=f"{_ENGINES}.vilt.vqa:load_vqa")
_SDXL_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_SD3_PARTS = ("transformer", *_SDXL_PARTS[1:], "text_encoder_3", "tokenizer_3")

KINDS = {
    "base": ModelKind("Stable Diffusion XL", f"{_ENGINES}.sdxl.loading:load_sdxl", _SDXL_PARTS),
    "verifier": ModelKind("ViLT, start of the verifier", f"{_ENGINES}.vilt.verifier:load_verifier"),
    "clip": ModelKind("CLIP", f"{_ENGINES}.clip_score:load_clip"),
    "image_reward": ModelKind(
        "ImageReward",
        f"{_ENGINES}.image_reward:load_image_reward",
        extra=(IMAGE_REWARD_CHECKPOINT, "head.safetensors"),
    ),
    "examiner": ModelKind("examiner of the tiny world", f"{_ENGINES}.examiner:load_examiner"),
    "benchmark": ModelKind("Stable Diffusion 3", f"{_ENGINES}.sd3.loading:load_sd3", _SD3_PARTS),
    "critic": _VQA("ViLT that answers questions"),
    "component_examiner": _VQA("examiner of the tiny world's interactions"),
    "proposer": ModelKind(
        "any text-to-image pipeline", f"{_ENGINES}.auto.loading:load_text_to_image", any_parts=True
    ),
    "editor": ModelKind(
        "image-editing pipeline", f"{_ENGINES}.auto.loading:load_editor", any_parts=True
    ),
    "repair": ModelKind(
        "Stable Diffusion 3 or XL, for local repair",
        f"{_ENGINES}.inpainting:load_inpainting_model",
        any_parts=True,
    ),
    "repair_verifier": ModelKind(
        "verifier whose map local repair follows",
        f"{_ENGINES}.vilt.verifier:load_verifier",
        extra=("verifier.json", "defects.safetensors"),
    ),
    "blip_vqa": ModelKind("BLIP that answers questions", f"{_ENGINES}.blip_vqa:load_blip_vqa"),
    "hpsv3": ModelKind("HPSv3", f"{_ENGINES}.hpsv3.loading:load_hpsv3", extra=(HPSV3_CHECKPOINT,)),
}
# No entries of their own: the published ImageReward comes without its tokenizer, HPSv3 without
# that and its configuration.
TOKENIZER = "image_reward_tokenizer"
HPSV3_BASE = "hpsv3_base"
ALL_KINDS = {
    **KINDS,
    TOKENIZER: ModelKind(
        "tokenizer of ImageReward", f"{_ENGINES}.pretrained:load_tokenizer", weights=False
    ),
    HPSV3_BASE: ModelKind(
        "configuration and tokenizer of HPSv3",
        f"{_ENGINES}.hpsv3.loading:load_base",
        weights=False,
    ),
}


def named_models(models: Models) -> dict[str, ModelRef]:
    """The models that a profile names, by entry; with what a published one needs besides."""
    found = {entry: ref for entry in KINDS if (ref := getattr(models, entry)) is not None}
    reward = models.image_reward
    if reward.folder is None or (reward.folder / IMAGE_REWARD_CHECKPOINT).is_file():
        from hoi_assets.engines.image_reward import PUBLISHED_TOKENIZER

        found[TOKENIZER] = PUBLISHED_TOKENIZER
    if models.hpsv3 is not None:
        from hoi_assets.engines.hpsv3.loading import PUBLISHED_BASE, base_of

        if base_of(models.hpsv3) == PUBLISHED_BASE:
            found[HPSV3_BASE] = PUBLISHED_BASE
    return found


def chosen_models(models: Models, entries: Iterable[str]) -> dict[str, ModelRef]:
    """Those of `named_models` that are asked for; all where none is.

    Raises:
        HoiError: an entry that the profile does not name.
    """
    found = named_models(models)
    entries = list(entries)
    for entry in entries:
        if entry not in found:
            raise HoiError(
                f"the profile names no model {entry!r}", f"name one of: {', '.join(found)}"
            )
    return {entry: ref for entry, ref in found.items() if not entries or entry in entries}
