"""Draws an image again that neither SDXL nor the benchmark model drew from noise: a local repair,
an edit, or a candidate of `models.proposer`."""

from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.cli.image_trace import Found
from hoi_assets.detailscribe.image_rows import IMAGE_EDIT, LOCAL_REPAIR, drawn_row
from hoi_assets.detailscribe.local_repair import repair_model
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

Again = tuple["Image.Image | None", str | None, dict[str, Any]]
CANDIDATES = "candidate_images"


def other_model(settings: Settings, found: Found) -> tuple[str, ModelRef] | None:
    """The model that drew the image, with its name in the profile; None: base or benchmark.

    Raises:
        HoiError: the profile names none.
    """
    method, first = found.row.get("method"), found.row.get("candidate") == 0
    if found.published.asset == CANDIDATES and found.row["lora_version"] is None:
        name, ref = "proposer", settings.models.proposer
    elif method == LOCAL_REPAIR and not first:
        name, ref = "repair", repair_model(settings)
    elif method == IMAGE_EDIT and not first:
        name, ref = "editor", settings.models.editor
    else:
        return None
    if ref is None:
        raise HoiError(
            f"the image was drawn by models.{name}, and the profile names none",
            f"set models.{name} to the model it was drawn by",
        )
    return name, ref


def draw_by_other(store: Store, settings: Settings, ref: ModelRef, found: Found) -> Again:
    """Draw the image of `other_model` again.

    Raises:
        HoiError: the settings are not those that it was drawn under.
    """
    method = found.row.get("method")
    if method == LOCAL_REPAIR:
        return _by_inpainting(store, settings, ref, found)
    return _by_auto_pipeline(store, settings, ref, found, edits=method == IMAGE_EDIT)


def _by_inpainting(store: Store, settings: Settings, ref: ModelRef, found: Found) -> Again:
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.inpainting import (
        InpaintSpec,
        inpaint_images,
        load_inpainting_model,
    )

    row = found.row
    loaded = load_inpainting_model(ref, configure_torch(settings))
    how = _own(found.published.table("repairs"), row_id=row["row_id"])
    spec = InpaintSpec(drawn_row(row), how["picture"], how["mask"], how["steps"])
    (one,) = inpaint_images(loaded, [spec], row["batch_size"], store.images.open)
    return one.image, one.reason, loaded.environment(row["batch_size"])


def _by_auto_pipeline(
    store: Store, settings: Settings, ref: ModelRef, found: Found, edits: bool
) -> Again:
    from hoi_assets.engines.auto.loading import load_editor, load_text_to_image
    from hoi_assets.engines.auto.sampling import BATCH_SIZE, AutoSpec, auto_key, draw_images
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.ppv.auto_proposer import redrawn_spec

    row = found.row
    if edits:
        how = _own(found.published.table("edits"), row_id=row["row_id"], candidate=row["candidate"])
        spec = AutoSpec(drawn_row(row), how["true_cfg_scale"], picture=how["picture"])
    else:
        spec = redrawn_spec(settings, row)
    if not auto_key(spec, model_digest(ref)).startswith(row["image_id"]):
        raise HoiError(
            f"image {row['image_id']} was drawn under other settings of `proposer`",
            "set the section `proposer` as it was then",
        )
    load = load_editor if edits else load_text_to_image
    loaded = load(ref, configure_torch(settings))
    (one,) = draw_images(loaded, [spec], store.images.open)
    return one.image, one.reason, loaded.environment(BATCH_SIZE)


def _own(table: pl.DataFrame, **key: Any) -> dict[str, Any]:
    return table.filter(**key).row(0, named=True)
