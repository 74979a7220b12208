"""What the verifier is trained on: images with a prompt and two labels, fidelity and alignment.

Rendered twins of the pool carry their labels; people's come from a folder (`manual_labels.py`).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.engines.batch_sizes import settle_batch_size
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.ppv.manual_labels import LABELLED, labelled_by_people
from hoi_assets.progress import Log, track
from hoi_assets.settings import LABELS_FILE, Settings, digested, resolve_path, restore_remedy
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import Taxonomy

if TYPE_CHECKING:
    from PIL import Image

POOL_SPLITS = {"judge_train": "train", "judge_val": "validation", "judge_test": "test"}
GENERATOR_VIEWS = ("vae", "renoised")
VIEW_KIND = "view"
ROWS_PER_TWIN, PICTURES_PER_TWIN = 3, 2

VERIFIER_PAIR_ROWS = Table(
    "rows",
    "one image and prompt, labelled for fidelity and alignment",
    (
        Column("pair_id", pl.String, "hash of image and prompt, 16 hex digits"),
        Column("split", pl.String, "train, validation or test"),
        Column("pixels", pl.String, "digest of the pixels"),
        Column("prompt", pl.String, "what the image is compared with"),
        Column("category", pl.String, "hand-pose category; null where unknown", nullable=True),
        Column("fidelity", pl.Boolean, "the image is free of defects"),
        Column("alignment", pl.Boolean, "the image agrees with the prompt"),
        Column("defects", pl.List(pl.String), "defects put into the scene on purpose, or named"),
        Column(
            "defect_map",
            pl.String,
            "digest of a picture that is white where the image is defective; null where unknown",
            nullable=True,
        ),
        Column("lies", pl.List(pl.String), "what the prompt says wrongly on purpose"),
        Column(
            "shown_as",
            pl.String,
            f"render, vae (through the VAE) or renoised; {LABELLED}: a picture labelled by people",
        ),
        Column("scene_id", pl.String, "scene of the pool, or the image's digest"),
        Column("grasp_id", pl.String, "grasp of the scene, or the image's digest"),
        Column("seen", pl.Boolean, "the pose and object are trained on together"),
    ),
    key=("pair_id",),
)


def labels_digest(settings: Settings) -> str:
    """Digest of the file that the labels come from.

    Raises:
        HoiError: the file is missing.
    """
    return digest_file(_labels_file(settings))


def _labels_file(settings: Settings) -> Path:
    labels = settings.verifier.labels_folder
    path = (
        resolve_path(settings.instance_images.pool) / "twins.parquet"
        if labels is None
        else resolve_path(labels) / LABELS_FILE
    )
    if not path.is_file():
        raise HoiError(
            f"no labelled pictures for the verifier at {path}",
            f"{restore_remedy(settings.instance_images.pool, 'world')}; or name a folder with "
            f"{LABELS_FILE} under verifier.labels_folder in the profile",
        )
    return path


def labelled_pairs(store: Store, settings: Settings, taxonomy: Taxonomy, log: Log) -> pl.DataFrame:
    """The labelled pairs, in three splits that share no scene and no grasp.

    A share of the renders (`verifier.generator_view_share`) is passed through the VAE, or lightly
    re-noised and denoised by the base model, because the verifier will judge generated images.

    Returns:
        Table `VERIFIER_PAIR_ROWS`, sorted by split and pair_id.

    Raises:
        HoiError: the source is missing, empty, or names an unreadable picture.
    """
    if settings.verifier.labels_folder is not None:
        rows = list(labelled_by_people(store, _labels_file(settings), settings.verifier.seed))
    else:
        rows = _pool_pairs(store, settings, taxonomy, log)
    if not rows:
        raise HoiError(
            f"{_labels_file(settings)} holds no labelled picture", "add some, or use another source"
        )
    return VERIFIER_PAIR_ROWS.frame(rows).sort("split", "pair_id")


def _pool_pairs(
    store: Store, settings: Settings, taxonomy: Taxonomy, log: Log
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for twins in _chosen_twins(settings):
        for scene in twins.iter_rows(named=True):
            rows += _twin_pairs(store, settings, taxonomy, scene)
    _replace_pixels(store, settings, rows, log)
    return rows


def count_views(settings: Settings) -> Counter[str]:
    """How many pictures of the pairs are shown as which view: render, vae or renoised; with labels
    of one's own, none.

    Raises:
        HoiError: the pool is missing.
    """
    counts: Counter[str] = Counter()
    if settings.verifier.labels_folder is None:
        for twins in _chosen_twins(settings):
            for scene_id in twins["scene_id"]:
                counts[_view(settings, scene_id)] += PICTURES_PER_TWIN
    return counts


def _chosen_twins(settings: Settings) -> Iterator[pl.DataFrame]:
    """The twins of each split that pairs are made of."""
    from hoi_assets.store.scene_pool import read_pool

    folder = _labels_file(settings).parent
    for split, name in POOL_SPLITS.items():
        twins = read_pool(folder, split).sort("scene_id")
        if name == "train":
            # By hash, so that the choice does not depend on the order of rendering.
            order = sorted(
                twins["scene_id"], key=lambda name: seed_of(settings.verifier.seed, name)
            )
            kept = order[: settings.verifier.training_pairs // ROWS_PER_TWIN]
            twins = twins.filter(pl.col("scene_id").is_in(kept))
        yield twins


def _twin_pairs(
    store: Store, settings: Settings, taxonomy: Taxonomy, scene: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The spoilt picture and its twin under the true caption, and the twin under a false one."""
    from hoi_assets.store.scene_pool import decode_mask, decode_picture

    category = scene["category"]
    whole, spoilt = (store.images.put(decode_picture(scene[one])) for one in ("twin", "picture"))
    defect_map = store.images.put(decode_mask(scene["defect_map"]))
    for pixels, caption, lies in (
        (whole, scene["caption"], []),
        (whole, scene["false_caption"], [scene["lie"]]),
        (spoilt, scene["caption"], []),
    ):
        faulty = pixels == spoilt
        yield {
            "pair_id": digest([scene["scene_id"], pixels, caption])[:16],
            "split": POOL_SPLITS[scene["split"]],
            "pixels": pixels,
            "prompt": caption,
            "category": category,
            "fidelity": not faulty,
            "alignment": not lies,
            "defects": [scene["defect"]] if faulty else [],
            "defect_map": defect_map if faulty else None,
            "lies": lies,
            "shown_as": _view(settings, scene["scene_id"]),
            "scene_id": scene["scene_id"],
            "grasp_id": scene["grasp_id"],
            "seen": category in taxonomy.categories
            and scene["object"] in taxonomy.categories[category].objects,
        }


def _view(settings: Settings, scene_id: str) -> str:
    """Plain or as the generator shows it: chosen by hash, both generator views equally often."""
    part = seed_of("view", settings.verifier.seed, scene_id) % 10_000 / 10_000
    share = settings.verifier.generator_view_share
    if part >= share:
        return "render"
    return "vae" if part < share / 2 else "renoised"


def _replace_pixels(store: Store, settings: Settings, rows: list[dict[str, Any]], log: Log) -> None:
    """Replace the pixels of rows that are shown as the generator shows them: each picture once,
    under its scene's true caption, so that a view never comes closer to a lie."""
    captions = {row["scene_id"]: row["prompt"] for row in rows if row["alignment"]}
    base = model_digest(settings.models.base)
    sampling = digested(settings.sampling)
    del sampling["batch_size"]
    for view in GENERATOR_VIEWS:
        chosen = [row for row in rows if row["shown_as"] == view]
        keys = [
            digest(
                {
                    "view": view,
                    "pixels": row["pixels"],
                    "prompt": captions[row["scene_id"]] if view == "renoised" else None,
                    "strength": settings.verifier.renoise_strength if view == "renoised" else None,
                    "sampling": sampling,
                    "base": base,
                }
            )
            for row in chosen
        ]
        known = store.ledger.get(VIEW_KIND, keys)
        lost = set(store.images.missing(known.values()))
        missing = {
            key: row | {"prompt": captions[row["scene_id"]]}
            for key, row in zip(keys, chosen, strict=True)
            if key not in known or known[key] in lost
        }
        if missing:
            shown = _views(store, settings, view, list(missing.values()), log)
            for key, pixels in zip(
                missing, track(shown, f"{view} views", len(missing), log), strict=True
            ):
                known[key] = store.ledger.put(VIEW_KIND, {key: pixels})[key]
        for key, row in zip(keys, chosen, strict=True):
            row["pixels"] = known[key]


def _views(
    store: Store, settings: Settings, view: str, rows: list[dict[str, Any]], log: Log
) -> Iterator[str]:
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.sdxl.img2img import IMAGE_TO_IMAGE, renoise, round_trip
    from hoi_assets.engines.sdxl.loading import load_sdxl

    sampling = settings.sampling
    loaded = load_sdxl(settings.models.base, configure_torch(settings))
    images = [store.images.open(row["pixels"]) for row in rows]

    def shown(chosen: range, size: int) -> Iterator["Image.Image"]:
        own, own_rows = [images[n] for n in chosen], [rows[n] for n in chosen]
        if view == "vae":
            return round_trip(loaded, own, sampling, size)
        return renoise(
            loaded,
            own,
            [row["prompt"] for row in own_rows],
            [seed_of("renoise", row["scene_id"]) for row in own_rows],
            settings.verifier.renoise_strength,
            sampling,
            size,
        )

    size = settle_batch_size(
        loaded,
        store.home,
        sampling.batch_size,
        (IMAGE_TO_IMAGE, sampling.width, sampling.height),
        lambda count: list(shown(range(min(count, len(images))), count)),
        log,
    )
    for picture in shown(range(len(images)), size):
        yield store.images.put(picture)
