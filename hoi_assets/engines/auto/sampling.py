"""Draws and edits images by a diffusers pipeline of any class.

What a class takes differs, so a call passes what the signature names. Images are drawn one by one:
some pipelines pad their prompts to the longest of a batch, so that an image would depend on its
neighbours, and models of this size are hardly faster in batches.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hoi_assets.engines.auto.loading import LoadedAutoPipeline
from hoi_assets.engines.diffusion_pipeline import tensor_to_images
from hoi_assets.engines.image_spec import ImageSpec, Lora, image_key
from hoi_assets.engines.out_of_memory import SMALLER_MODEL, naming_out_of_memory
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file

AUTO_VERSION = "1"  # part of every key: raise it when the pixels change
SCHEDULER = "model"  # the model's own
BATCH_SIZE = 1
LORA_FILE = "pytorch_lora_weights.safetensors"
MAX_ADAPTERS = 16


@dataclass(frozen=True)
class AutoSpec:
    """All that determines one image, except the model and the environment.

    Attributes:
        row: prompt (or instruction), seed and sampling; its `guidance_scale` is the pipeline's
            argument of that name, which distilled models take as an input.
        true_cfg_scale: classifier-free guidance of pipelines that call it so; None: their default.
        max_sequence_length: tokens of the prompt; None: the pipeline's default.
        picture: digest of the picture that is edited; None: drawn from noise alone.
    """

    row: ImageSpec
    true_cfg_scale: float | None = None
    max_sequence_length: int | None = None
    picture: str | None = None


@dataclass(frozen=True)
class AutoImage:
    """An image, or the reason why there is none.

    Attributes:
        denoiser_evaluations: passes of the denoiser (NFE), counted while it was drawn.
        seconds: wall time.
    """

    spec: AutoSpec
    image: Image.Image | None
    reason: str | None
    denoiser_evaluations: int
    seconds: float


def auto_key(spec: AutoSpec, base_digest: str) -> str:
    """Hash of all that determines the image, except the environment."""
    return digest(
        {
            "auto": AUTO_VERSION,
            "row": image_key(spec.row, base_digest),
            "true_cfg_scale": spec.true_cfg_scale,
            "max_sequence_length": spec.max_sequence_length,
            "picture": spec.picture,
        }
    )


def auto_lora(folder: Path) -> Lora | None:
    """The LoRA in a folder in diffusers' layout; None where there is none."""
    path = folder / LORA_FILE
    return Lora(folder=str(folder), digest=digest_file(path)) if path.is_file() else None


def draw_images(
    loaded: LoadedAutoPipeline,
    specs: Iterable[AutoSpec],
    open_image: Callable[[str], Image.Image] | None = None,
) -> Iterator[AutoImage]:
    """Draw or edit images, one after the other.

    Args:
        open_image: a stored picture by its digest; needed where pictures are edited.

    Raises:
        HoiError: the pipeline takes no generator, a LoRA does not fit, or no room on the device.
    """
    lacking = [name for name in ("prompt", "generator") if name not in loaded.takes]
    if lacking:
        raise HoiError(
            f"{type(loaded.pipe).__name__} takes no {' and no '.join(lacking)}",
            "name a pipeline whose images can be drawn again from prompt and seed",
        )
    for spec in specs:
        yield _draw(loaded, spec, open_image)


def _draw(
    loaded: LoadedAutoPipeline,
    spec: AutoSpec,
    open_image: Callable[[str], Image.Image] | None,
) -> AutoImage:
    import torch

    begin = time.perf_counter()
    _activate_lora(loaded, spec.row.lora)
    call = call_arguments(loaded, spec)
    if spec.picture is not None and open_image is not None:
        call["image"] = open_image(spec.picture).convert("RGB")
    what = f"an image of {spec.row.width}x{spec.row.height} px"
    with (
        _counted(loaded.denoiser) as count,
        torch.no_grad(),
        naming_out_of_memory(what, SMALLER_MODEL),
    ):
        drawn = loaded.pipe(**call).images
    (image,) = tensor_to_images(drawn)
    if image is not None and image.size != (spec.row.width, spec.row.height):
        image = image.resize((spec.row.width, spec.row.height), Image.Resampling.LANCZOS)
    return AutoImage(
        spec,
        image,
        None if image else "not_finite: the model gave NaN or infinity",
        sum(count),
        time.perf_counter() - begin,
    )


def call_arguments(loaded: LoadedAutoPipeline, spec: AutoSpec) -> dict[str, Any]:
    """What the pipeline is called with: of all that is known of an image, what it takes."""
    row, takes = spec.row, loaded.takes
    known: dict[str, Any] = {
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt,
        "width": row.width,
        "height": row.height,
        "num_inference_steps": row.steps,
        "generator": generator(row.seed),
        "output_type": "pt",
        # FLUX Kontext draws a megapixel whatever is asked for, unless told otherwise.
        "max_area": row.width * row.height,
        "_auto_resize": False,
    }
    # Where None is the default, it is for distilled models only; others warn and ignore it.
    distilled = bool(getattr(loaded.denoiser.config, "guidance_embeds", False))
    if "guidance_scale" in takes and (distilled or takes["guidance_scale"].default is not None):
        known["guidance_scale"] = row.guidance_scale
    for name in ("true_cfg_scale", "max_sequence_length"):
        if getattr(spec, name) is not None:
            known[name] = getattr(spec, name)
    return {name: value for name, value in known.items() if name in takes}


def unused_options(loaded: LoadedAutoPipeline, spec: AutoSpec) -> list[str]:
    """Of the options that were set, those that this pipeline does not take."""
    wanted = {
        "negative_prompt": bool(spec.row.negative_prompt),
        "true_cfg_scale": spec.true_cfg_scale is not None,
        "max_sequence_length": spec.max_sequence_length is not None,
    }
    return [name for name, given in wanted.items() if given and name not in loaded.takes]


@contextmanager
def _counted(denoiser: Any) -> Iterator[list[int]]:
    """Inside, images per forward pass are appended to the list."""
    import torch

    sizes: list[int] = []

    def count(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(
            (one for one in (*given, *named.values()) if isinstance(one, torch.Tensor)), None
        )
        sizes.append(1 if first is None or not first.ndim else int(first.shape[0]))

    hook = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


def _activate_lora(loaded: LoadedAutoPipeline, lora: Lora | None) -> None:
    """Make `lora` the only active adapter; None is the base model."""
    pipe, own = loaded.pipe, loaded.adapters
    if lora is None:
        if own:
            pipe.disable_lora()
        return
    if lora.digest not in own:
        while len(own) >= MAX_ADAPTERS:
            pipe.delete_adapters(own.popitem(last=False)[1])
        name = f"lora_{lora.digest[:16]}"
        try:
            pipe.load_lora_weights(
                lora.folder, weight_name=LORA_FILE, adapter_name=name, local_files_only=True
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise HoiError(
                f"the LoRA in {lora.folder} does not fit {loaded.ref.source!r}: {error}",
                "train it on this model, or take it out of proposer.loras_folder",
            ) from error
        own[lora.digest] = name
    own.move_to_end(lora.digest)
    pipe.enable_lora()
    pipe.set_adapters(own[lora.digest])
