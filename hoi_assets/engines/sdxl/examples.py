"""Images and captions as LoRA training reads them: encoded once, kept on disk, read by the batch.

A training holds neither all pictures nor all latents in memory: 10,000 pictures of 1024 px are
30 GB, their latents 2.6 GB, their captions' embeddings 3 GB.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import keeping_vae_dtype
from hoi_assets.engines.long_prompts import lengthened
from hoi_assets.engines.sdxl.framing import Framing
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.hashing import digest_file, digest_pixels
from hoi_assets.store.images import ImageStore

Pair = tuple[Image.Image, str]  # an image and its caption
Embed = Callable[[str], tuple[Any, Any]]  # a caption's embeddings (1, tokens, width) and (1, width)

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
    """Encoded images on disk, with the embeddings of their captions.

    Attributes:
        buckets: numbers of the images that have one size, for every size that occurs.
        places: of each image, its bucket and its place there.
        latents: for each bucket (rows, channels, height, width), scaled; float32, mapped into
            memory. A row per image, or two: as it is, and mirrored.
        channels_last: memory format in which the VAE gave them; kernels choose their arithmetic
            by it.
        time_ids: (rows of all, 6), SDXL's sizes and crop, image by image.
        mirrored: whether there are mirrored rows.
        embed: embeddings of a caption.
    """

    buckets: list[list[int]]
    places: list[tuple[int, int]]
    latents: list[Any]
    channels_last: bool
    time_ids: Any
    mirrored: bool
    captions: list[str]
    embed: Embed
    device: str

    def __len__(self) -> int:
        return len(self.captions)

    def take(
        self, indices: Sequence[int], mirrored: Sequence[bool] = (), empty: Sequence[bool] = ()
    ) -> tuple[Any, Any, Any, Any]:
        """Latents, time ids, embeddings and pooled embeddings at `indices`, as batches.

        Args:
            indices: of images of one bucket.
            mirrored: which of them are taken mirrored; none where left out.
            empty: which of them get an empty caption; none where left out.
        """
        import torch

        bucket, _ = self.places[indices[0]]
        copies = 1 + self.mirrored
        extra = [int(one) for one in mirrored] or [0] * len(indices)
        rows = [self.places[i][1] * copies + more for i, more in zip(indices, extra, strict=True)]
        ids = [i * copies + more for i, more in zip(indices, extra, strict=True)]
        dropped = empty or [False] * len(indices)
        captions = [
            "" if none else self.captions[i] for i, none in zip(indices, dropped, strict=True)
        ]
        found = {caption: self.embed(caption) for caption in dict.fromkeys(captions)}
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return (
            self.latents[bucket][rows].to(self.device, memory_format=memory_format),
            self.time_ids[ids],
            self.join([found[caption][0] for caption in captions]),
            torch.cat([found[caption][1] for caption in captions]),
        )

    def join(self, embeds: Iterable[Any]) -> Any:
        """Embeddings of captions as one batch, all as long as the longest."""
        import torch

        parts = list(embeds)
        tokens = max(part.shape[1] for part in parts)
        return torch.cat(
            [
                part if part.shape[1] == tokens else lengthened(part, tokens, self.embed("")[0])
                for part in parts
            ]
        )


class StoredTexts:
    """Embeddings of captions, read from files of `TEXTS_PER_FILE` each."""

    def __init__(self, loaded: LoadedSDXL, folder: Path, texts: Sequence[str]) -> None:
        from safetensors import safe_open

        self._loaded = loaded
        self._numbers = {text: number for number, text in enumerate(texts)}
        self._files = [
            safe_open(folder / _texts_file(first), framework="pt")
            for first in range(0, len(texts), TEXTS_PER_FILE)
        ]

    def __call__(self, text: str) -> tuple[Any, Any]:
        number = self._numbers.get(text)
        if number is None:
            return self._loaded.encode(text)
        file, device = self._files[number // TEXTS_PER_FILE], self._loaded.device
        embeds, pooled = (file.get_tensor(f"{kind}.{number}") for kind in ("embeds", "pooled"))
        return embeds.to(device), pooled.to(device)


def encode(
    loaded: LoadedSDXL,
    pairs: Sequence[Pair],
    folder: Path,
    key: str,
    framing: Framing | None = None,
    embed: Embed | None = None,
) -> Examples:
    """Latents of each image (mode of the posterior), embeddings of each caption.

    Args:
        folder: is filled, or read where it holds what `key` names.
        key: hash of all that determines them.
        framing: None: squares of the model's size.
        embed: encodes captions anew whenever they are taken; None: they are encoded once.
    """
    if not pairs:
        return Examples([], [], [], False, None, False, [], embed or loaded.encode, loaded.device)
    framing = framing or Framing(((loaded.resolution, loaded.resolution),))
    captions = _captions(pairs)
    texts = [] if embed else list(dict.fromkeys(captions))
    manifest = _read_manifest(folder, key)
    if manifest is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        manifest = _write(loaded, pairs, framing, texts, folder, key)
    return _opened(loaded, folder, manifest, captions, embed or StoredTexts(loaded, folder, texts))


def _captions(pairs: Sequence[Pair]) -> list[str]:
    if isinstance(pairs, StoredPairs):
        return [caption for _, caption in pairs.digests]
    return [caption for _, caption in pairs]


def _write(
    loaded: LoadedSDXL,
    pairs: Sequence[Pair],
    framing: Framing,
    texts: list[str],
    folder: Path,
    key: str,
) -> dict[str, Any]:
    time_ids, buckets, channels_last = [], [], False
    shapes: list[list[int]] = [[0] for _ in framing.sizes]
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / _latents_file(bucket)).open("wb"))
            for bucket in range(len(framing.sizes))
        ]
        stack.enter_context(_vae_in_float32(loaded))
        for number, (image, _) in enumerate(pairs):
            bucket = framing.bucket(image)
            buckets.append(bucket)
            for mirrored in (False, True) if framing.mirrored else (False,):
                cut, ids = framing.cut(image.convert("RGB"), number, mirrored)
                latents = _latents(loaded, cut)
                channels_last = not latents.is_contiguous()
                files[bucket].write(latents.contiguous().numpy().tobytes())
                shapes[bucket] = [shapes[bucket][0] + 1, *latents.shape[1:]]
                time_ids.append(ids)
    _write_texts(loaded, texts, folder)
    manifest = {
        "key": key,
        "buckets": buckets,
        "shapes": shapes,
        "channels_last": channels_last,
        "time_ids": time_ids,
        "mirrored": framing.mirrored,
        "files": {path.name: digest_file(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def _latents(loaded: LoadedSDXL, image: Image.Image) -> Any:
    import torch

    pipe = loaded.pipe
    pixels = pipe.image_processor.preprocess(image)
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels.to(loaded.device, pipe.vae.dtype)).latent_dist
    return (posterior.mode() * pipe.vae.config.scaling_factor).float().cpu()


@contextmanager
def _vae_in_float32(loaded: LoadedSDXL) -> Iterator[None]:
    """As diffusers' scripts encode, whatever the base model's dtype is."""
    import torch

    with keeping_vae_dtype(loaded):
        if loaded.pipe.vae.dtype != torch.float32:
            loaded.pipe.vae.to(torch.float32)
        yield


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


def _latents_file(bucket: int) -> str:
    return f"latents-{bucket}.float32"


def _read_manifest(folder: Path, key: str) -> dict[str, Any] | None:
    """What an earlier, perhaps killed, training encoded; None where that is not whole."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all(digest_file(folder / name) == one for name, one in manifest["files"].items())
        return manifest if whole and manifest["key"] == key and "buckets" in manifest else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _opened(
    loaded: LoadedSDXL, folder: Path, manifest: dict[str, Any], captions: list[str], embed: Embed
) -> Examples:
    import math

    import torch

    used = sorted(set(manifest["buckets"]))
    buckets: list[list[int]] = [[] for _ in used]
    places = []
    for number, bucket in enumerate(manifest["buckets"]):
        members = buckets[used.index(bucket)]
        places.append((used.index(bucket), len(members)))
        members.append(number)
    return Examples(
        buckets=buckets,
        places=places,
        latents=[
            torch.from_file(
                str(folder / _latents_file(bucket)),
                shared=False,
                size=math.prod(manifest["shapes"][bucket]),
                dtype=torch.float32,
            ).view(manifest["shapes"][bucket])
            for bucket in used
        ],
        channels_last=manifest["channels_last"],
        time_ids=torch.tensor(manifest["time_ids"], dtype=torch.float32, device=loaded.device),
        mirrored=manifest["mirrored"],
        captions=captions,
        embed=embed,
        device=loaded.device,
    )
