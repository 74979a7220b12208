"""Renders pools of scenes (`hoi_assets.store.scene_pool` reads them).

`python -m hoi_assets.tinyworld.scenes.pool --out FOLDER` writes shard by shard, each complete or
absent, so that a killed render resumes where it stopped and training may begin on the first shards.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.scenes.blind import LABELS, read_study, write_study
from hoi_assets.tinyworld.scenes.groups import TWIN_SPLITS
from hoi_assets.tinyworld.scenes.packing import pack
from hoi_assets.tinyworld.scenes.render import FAST, Quality
from hoi_assets.tinyworld.scenes.shards import (
    TAXONOMY,
    RenderSettings,
    render_stored,
    render_stream,
)
from hoi_assets.tinyworld.scenes.sheets import contact_sheets, twin_sheets


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the stored pool (no --split), or a stream (--split); or pack, or write sheets."""
    parser = argparse.ArgumentParser(
        prog="python -m hoi_assets.tinyworld.scenes.pool", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="folder of the pool")
    parser.add_argument("--split", help="a stream's name; left out: the stored pool")
    parser.add_argument("--count", type=int, default=8000, help="pictures, or pairs of twins")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--samples", type=int, help="samples per pixel")
    parser.add_argument(
        "--fast",
        action="store_true",
        help=f"{FAST.samples_per_pixel} samples and rasterised first hits: other pixels, twice as "
        "many pictures a second",
    )
    parser.add_argument("--sheets", type=Path, help="write contact sheets here; render nothing")
    parser.add_argument("--pack", type=Path, help="pack --split into this folder; render nothing")
    parser.add_argument(
        "--study",
        type=Path,
        help="write a blind study of a split of twins into this folder, or, where its table is "
        "filled in, say what the rater saw; render nothing",
    )
    parser.add_argument("--taxonomy", type=Path, default=TAXONOMY, help="taxonomy folder")
    given = parser.parse_args(arguments)
    if given.count < 1 or given.workers < 1 or (given.samples or 1) < 1:
        parser.error("--count, --workers and --samples must be at least 1")
    filled = given.study is not None and (given.study / LABELS).is_file()
    if given.out is None and not filled:
        parser.error("--out is required")
    if (given.pack or given.study) is not None and given.split is None and not filled:
        parser.error("--pack and --study need --split")
    settings = RenderSettings(_quality(given), given.taxonomy)
    try:
        if filled:
            print(read_study(given.study).as_text())
        elif given.pack is not None:
            pack(given.out, given.split, given.pack)
        elif given.study is not None:
            count = write_study(given.out, given.split, given.study)
            print(f"{count} pictures; fill in the column `spoilt` of {given.study / LABELS}")
        elif given.sheets is not None:
            twins = given.split in TWIN_SPLITS
            for sheet in (
                twin_sheets(given.out, given.split, given.sheets)
                if twins
                else contact_sheets(given.out, given.sheets)
            ):
                print(sheet)
        elif given.split is None:
            print(render_stored(given.out, given.workers, settings))
        else:
            render_stream(given.out, given.split, given.count, given.workers, settings)
    except HoiError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _quality(given: argparse.Namespace) -> Quality | None:
    """The quality that was asked for; None: that of each split."""
    if not given.fast and given.samples is None:
        return None
    quality = FAST if given.fast else RenderSettings().quality_of(given.split)
    return replace(quality, samples_per_pixel=given.samples or quality.samples_per_pixel)


if __name__ == "__main__":
    sys.exit(main())
