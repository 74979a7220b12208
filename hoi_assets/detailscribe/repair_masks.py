"""Which part of a picture local repair draws again: the verifier's defect map, or where the critic
looked when it found a component missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hoi_assets.detailscribe.critique import Critique
from hoi_assets.detailscribe.image_rows import Record
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import LocalRepair, ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

KIND = "repair_map"
MAPPING_VERSION = "1"  # part of every map's key
CHUNK = 64
# A picture and the text that it is looked at with: the prompt, or a component's question.
Looked = tuple[str, str]
Maps = Callable[[Sequence["Image.Image"], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class RepairMask:
    """What is to be drawn again.

    Attributes:
        pixels: digest of a black and white picture; None where nothing is.
        share: part of the picture that is white, 0 to 1.
    """

    pixels: str | None
    share: float


def repair_masks(
    store: Store,
    settings: Settings,
    options: LocalRepair,
    initial: Sequence[Record],
    critiques: Sequence[Critique | None],
    log: Log,
) -> dict[str, RepairMask]:
    """The mask of every initial image, by row_id.

    Args:
        initial: rows of `initial_images` that were drawn. critiques: of each, in their order.

    Raises:
        HoiError: the model that gives the map is not set, or gives none.
    """
    if options.mask == "verifier":
        looked = {row["row_id"]: [(row["pixels"], row["prompt"])] for row in initial}
        ref, compute = _verifier(settings)
    else:
        looked = {
            row["row_id"]: [
                (row["pixels"], critique.components[one.component].question)
                for one in critique.findings
                if not one.satisfied and one.component is not None
            ]
            for row, critique in zip(initial, critiques, strict=True)
            if critique is not None
        }
        ref, compute = _critic(settings)
    wanted = list(dict.fromkeys(one for own in looked.values() for one in own))
    maps = _cached_maps(store, ref, options.mask, compute, wanted, log)
    return {
        row["row_id"]: _mask(
            store,
            [maps[one] for one in looked.get(row["row_id"], ())],
            (row["width"], row["height"]),
            options,
        )
        for row in initial
    }


def mask_from_maps(
    maps: Sequence[np.ndarray], size: tuple[int, int], threshold: float, margin: float
) -> np.ndarray:
    """Where any of the maps reaches the threshold, widened by the margin.

    Args:
        maps: (S, S) in 0..1. size: width and height in pixels. margin: share of the shorter side.

    Returns:
        Bool (height, width).

    >>> cells = np.zeros((4, 4)); cells[1, 2] = 1
    >>> mask_from_maps([cells], (8, 8), 0.5, 0.0).sum()
    np.int64(4)
    """
    from PIL import Image, ImageFilter

    inside = np.zeros((size[1], size[0]), bool)
    for cells in maps:
        marked = Image.fromarray(np.where(cells >= threshold, 255, 0).astype(np.uint8))
        inside |= np.asarray(marked.resize(size, Image.Resampling.NEAREST)) > 0
    grown = round(margin * min(size))
    if not grown or not inside.any():
        return inside
    picture = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * grown + 1))) > 0


def _mask(
    store: Store, maps: Sequence[np.ndarray], size: tuple[int, int], options: LocalRepair
) -> RepairMask:
    from PIL import Image

    inside = mask_from_maps(maps, size, options.mask_threshold, options.mask_margin)
    if not inside.any():
        return RepairMask(None, 0.0)
    picture = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
    pixels = store.images.put(picture)
    store.images.flush()
    return RepairMask(pixels, float(inside.mean()))


def _critic(settings: Settings) -> tuple[ModelRef, Maps]:
    ref = settings.models.critic
    if settings.critic.endpoint is not None or ref is None:
        raise HoiError(
            "local_repair.mask is critic, and the critic gives no map: only a VQA model does",
            "unset critic.endpoint and name a VQA model under models.critic; or set "
            "local_repair.mask to verifier and name one under models.repair_verifier",
        )

    def compute(images: Sequence["Image.Image"], texts: Sequence[str]) -> np.ndarray:
        from hoi_assets.engines.vilt.relevance import relevance_of_no
        from hoi_assets.engines.vilt.vqa import load_vqa

        return relevance_of_no(load_vqa(ref, settings.device), images, texts)

    return ref, compute


def _verifier(settings: Settings) -> tuple[ModelRef, Maps]:
    ref = settings.models.repair_verifier
    if ref is None:
        raise HoiError(
            "local_repair.mask is verifier, and models.repair_verifier is not set",
            "name the folder of a verifier with a defect head, e.g. `model` of a version of the "
            "asset verifier",
        )

    def compute(images: Sequence["Image.Image"], texts: Sequence[str]) -> np.ndarray:
        from hoi_assets.engines.vilt.verifier import load_verifier, score_pairs

        maps = score_pairs(load_verifier(ref, settings.device), images, texts).maps
        if maps is None:
            raise HoiError(
                f"verifier {ref.source} has no defect head and gives no map",
                "name one that was trained on twins under models.repair_verifier, or set "
                "local_repair.mask to critic",
            )
        return maps

    return ref, compute


def _cached_maps(
    store: Store, ref: ModelRef, source: str, compute: Maps, wanted: Sequence[Looked], log: Log
) -> Mapping[Looked, np.ndarray]:
    """Maps (S, S) in 0..1; each is computed once per model and kept as a grey picture."""
    from hoi_assets.engines.vilt.pair_scores import map_picture
    from hoi_assets.engines.vilt.relevance import RELEVANCE_VERSION

    model = model_digest(ref)
    versions = (MAPPING_VERSION, RELEVANCE_VERSION if source == "critic" else None)
    keys = {
        one: digest({"map": source, "versions": versions, "model": model, "of": one})
        for one in wanted
    }
    known: dict[str, Any] = store.ledger.get(KIND, keys.values())
    lost = set(store.images.missing(known.values()))
    todo = [one for one in wanted if keys[one] not in known or known[keys[one]] in lost]
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        images = [store.images.open(pixels) for pixels, _ in chunk]
        maps = compute(images, [text for _, text in chunk])
        fresh = {
            keys[one]: store.images.put(map_picture(cells))
            for one, cells in zip(chunk, maps, strict=True)
        }
        store.images.flush()
        known |= store.ledger.put(KIND, fresh)
        log(f"local repair: {start + len(chunk)}/{len(todo)} maps")
    return {
        one: np.asarray(store.images.open(known[key]).convert("L")) / 255
        for one, key in keys.items()
    }
