"""Training captions that are longer than the model reads."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from hoi_assets.engines.image_cache import count_prompts
from hoi_assets.engines.sdxl.loading import PROMPT_COLUMNS, TEXT_ENCODERS
from hoi_assets.engines.text_tokens import encoder_values
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store

CUT_CAPTIONS = Table(
    "cut_captions",
    "one training caption that is cut; the table is absent where none is",
    (
        Column("caption", pl.String, "as it was trained with"),
        Column("images", pl.Int64, "training images with it"),
        *PROMPT_COLUMNS,
    ),
    key=("caption",),
    optional=True,
)


def find_cut_captions(
    store: Store, settings: Settings, captions: Sequence[str], label: str, log: Log
) -> pl.DataFrame:
    """Table `CUT_CAPTIONS` of the captions of all training images, longest first; they are logged.

    Raises:
        HoiError: a tokenizer of the base model cannot be read.
    """
    counts = count_prompts(store, settings, captions, label, log)
    images = Counter(captions)
    rows = [
        {"caption": caption, "images": images[caption], **encoder_values(own, TEXT_ENCODERS)}
        for caption, own in counts.items()
        if any(one.cut for one in own.values())
    ]
    table = CUT_CAPTIONS.frame(rows)
    return table.sort(f"{TEXT_ENCODERS[0]}_tokens", "caption", descending=[True, False])
