"""Images and captions as LoRA training reads them: encoded once, kept on disk, read by the batch.

A training holds neither all pictures nor all latents in memory: 10,000 pictures of 1024 px are
30 GB, their latents 2.6 GB, their captions' embeddings 3 GB.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import upcast_vae
from hoi_assets.engines.long_prompts import lengthened
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.hashing import digest_file, digest_pixels
from hoi_assets.store.images import ImageStore

Pair = tuple[Image.Image, str]  # an image and its caption

LATENTS = "latents.float32"
MANIFEST = "manifest.json"  # written last
TEXTS_PER_FILE = 256


class StoredPairs(Sequence[Pair]):
    """Images of the store with their captions; each is opened when it is asked for.

    Args:
        digests: of an image's pixels, with its caption.
    """

    def __init__(self, images: ImageStore, digests: Sequence[tuple[str, str]]) -> None:
        self._images = images
        self.digests = list(digests)

    def __len__(self) -> int:
        return len(self.digests)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredPairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | StoredPairs":
        if isinstance(index, slice):
            return StoredPairs(self._images, self.digests[index])
        pixels, caption = self.digests[index]
        return self._images.open(pixels), caption


def pair_digests(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """The digest of each image's pixels, with its caption."""
    if isinstance(pairs, StoredPairs):
        return pairs.digests
    return [(digest_pixels(image), caption) for image, caption in pairs]


@dataclass(frozen=True)
class Examples:
    """Encoded images on disk.

    Attributes:
        latents: (n, channels, height, width), scaled; float32, mapped into memory; None: n = 0.
        channels_last: memory format in which the VAE gave them; kernels choose their arithmetic
            by it.
        time_ids: (n, 6), SDXL's sizes and crop.
        captions: number of each image's caption.
        texts: open files of embeddings, `TEXTS_PER_FILE` captions each.
        chunk: embeddings (1, tokens, width) of an empty text, where captions are encoded in chunks
            and differ in length; None: all have one length.
    """

    latents: Any
    channels_last: bool
    time_ids: Any
    captions: list[int]
    texts: list[Any]
    device: str
    chunk: Any = None

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, indices: Sequence[int]) -> tuple[Any, Any, Any, Any]:
        """Latents, time ids, embeddings and pooled embeddings at `indices`, as batches."""
        import torch

        places = list(indices)
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        texts = [self._text(self.captions[place]) for place in places]
        return (
            self.latents[places].to(self.device, memory_format=memory_format),
            self.time_ids[places],
            self.join([embeds for embeds, _ in texts]),
            torch.cat([pooled for _, pooled in texts]),
        )

    def join(self, embeds: Iterable[Any]) -> Any:
        """Embeddings of captions as one batch, all as long as the longest."""
        import torch

        parts = list(embeds)
        tokens = max(part.shape[1] for part in parts)
        return torch.cat(
            [
                part if part.shape[1] == tokens else lengthened(part, tokens, self.chunk)
                for part in parts
            ]
        )

    def _text(self, number: int) -> tuple[Any, Any]:
        file = self.texts[number // TEXTS_PER_FILE]
        embeds, pooled = (file.get_tensor(f"{kind}.{number}") for kind in ("embeds", "pooled"))
        return embeds.to(self.device), pooled.to(self.device)


def encode(loaded: LoadedSDXL, pairs: Sequence[Pair], folder: Path, key: str) -> Examples:
    """Latents of each image (mode of the posterior), embeddings of each caption.

    Args:
        folder: is filled, or read where it holds what `key` names.
        key: hash of all that determines them.
    """
    if not pairs:
        return Examples(None, False, None, [], [], loaded.device)
    manifest = _read_manifest(folder, key)
    if manifest is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        manifest = _write(loaded, pairs, folder, key)
    return _opened(loaded, folder, manifest)


def _write(loaded: LoadedSDXL, pairs: Sequence[Pair], folder: Path, key: str) -> dict[str, Any]:
    import torch

    pipe, side = loaded.pipe, loaded.resolution
    time_ids, shape, channels_last = [], [], False
    numbers: dict[str, int] = {}
    captions = []
    with (folder / LATENTS).open("wb") as file:
        for image, caption in pairs:
            square, corner = _square(image.convert("RGB"), side)
            pixels = pipe.image_processor.preprocess(square)
            with upcast_vae(loaded), torch.no_grad():
                pixels = pixels.to(loaded.device, pipe.vae.dtype)
                posterior = pipe.vae.encode(pixels).latent_dist
            latents = (posterior.mode() * pipe.vae.config.scaling_factor).float().cpu()
            channels_last = not latents.is_contiguous()
            file.write(latents.contiguous().numpy().tobytes())
            shape = list(latents.shape[1:])
            # The order of the pipeline's own time ids: original size, crop's top left, target size.
            time_ids.append([image.height, image.width, *corner, side, side])
            captions.append(numbers.setdefault(caption, len(numbers)))
    _write_texts(loaded, list(numbers), folder)
    manifest = {
        "key": key,
        "shape": [len(pairs), *shape],
        "channels_last": channels_last,
        "time_ids": time_ids,
        "captions": captions,
        "files": {path.name: digest_file(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def _write_texts(loaded: LoadedSDXL, texts: list[str], folder: Path) -> None:
    from safetensors.torch import save_file

    for first in range(0, len(texts), TEXTS_PER_FILE):
        tensors = {}
        for number, text in enumerate(texts[first : first + TEXTS_PER_FILE], start=first):
            embeds, pooled = loaded.encode(text)
            tensors[f"embeds.{number}"] = embeds.cpu().contiguous()
            tensors[f"pooled.{number}"] = pooled.cpu().contiguous()
        save_file(tensors, folder / _texts_file(first))


def _texts_file(first: int) -> str:
    return f"texts-{first:08}.safetensors"


def _read_manifest(folder: Path, key: str) -> dict[str, Any] | None:
    """What an earlier, perhaps killed, training encoded; None where that is not whole."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all(digest_file(folder / name) == one for name, one in manifest["files"].items())
        return manifest if whole and manifest["key"] == key else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _opened(loaded: LoadedSDXL, folder: Path, manifest: dict[str, Any]) -> Examples:
    import math

    import torch
    from safetensors import safe_open

    shape, captions = manifest["shape"], manifest["captions"]
    latents = torch.from_file(
        str(folder / LATENTS), shared=False, size=math.prod(shape), dtype=torch.float32
    )
    return Examples(
        latents=latents.view(shape),
        channels_last=manifest["channels_last"],
        time_ids=torch.tensor(manifest["time_ids"], dtype=torch.float32, device=loaded.device),
        captions=captions,
        texts=[
            safe_open(folder / _texts_file(first), framework="pt")
            for first in range(0, max(captions) + 1, TEXTS_PER_FILE)
        ],
        device=loaded.device,
        chunk=None if loaded.ref.long_prompts == "cut" else loaded.encode("")[0],
    )


def _square(image: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """Shorter side resized to `side`, centre cropped; with the crop's (top, left)."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    top, left = (height - side) // 2, (width - side) // 2
    return image.crop((left, top, left + side, top + side)), (top, left)
