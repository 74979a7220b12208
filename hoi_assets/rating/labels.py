"""Makes the labels that the verifier is trained on from the votes of a `verify` study."""

import io
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.rating.study import (
    ALIGNMENT,
    FAULT,
    FIDELITY,
    IMAGES,
    Answer,
    Fault,
    Study,
    read_fault,
    read_study,
    study_images,
)
from hoi_assets.rating.vote_tables import votes_table
from hoi_assets.rating.votes import Key, read_lines
from hoi_assets.settings import LABELS_FILE
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.images import ImageStore


def write_labels(folder: Path, out: Path) -> pl.DataFrame:
    """Write the labels of the `verify` study in `folder` to `out`, which then serves as
    `verifier.labels_folder`: `labels.csv` and the pictures that it names. Columns: file, prompt,
    fidelity, alignment (0 or 1), category; of a picture without fidelity defect, the kind of fault
    that most raters named, and defect_x and defect_y, the mean of where they saw it (shares of
    width and height).

    A label is the majority's answer; a picture on which raters are evenly split, or for which a
    question has no answer, is left out.

    Returns:
        The table written, sorted by file and prompt.

    Raises:
        HoiError: not a `verify` study, no picture has both labels, or `out` cannot be written.
    """
    study = read_study(folder)
    if study.mode != "verify":
        raise HoiError(
            f"{folder} is a {study.mode} study", "labels come from a study of mode verify"
        )
    images, kept = study_images(folder), ImageStore(out / IMAGES, out)
    votes = votes_table(folder).filter((pl.col("status") == "accepted") & ~pl.col("repeat"))
    shares = (
        votes.unique(["line", "item"])
        .group_by("item", "image_a", "prompt", "category", "question")
        .agg(pl.col("score").mean())
        .filter(pl.col("score").is_not_null(), pl.col("score") != 0.5)
        .with_columns((pl.col("score") > 0.5).cast(pl.Int8).alias("label"))
    )
    labels: dict[str, dict[str, Any]] = {}
    for row in shares.iter_rows(named=True):
        own = labels.setdefault(
            row["item"],
            {
                "file": kept.path(row["image_a"]).relative_to(out).as_posix(),
                "prompt": row["prompt"],
                "category": row["category"],
            },
        )
        own[row["question"]] = row["label"]
    for item, fault in _faults(folder, study).items():
        if labels.get(item, {}).get(FIDELITY) == 0:
            labels[item] |= {"defect": fault.kind, "defect_x": fault.x, "defect_y": fault.y}
    schema = {
        "file": pl.String,
        "prompt": pl.String,
        FIDELITY: pl.Int8,
        ALIGNMENT: pl.Int8,
        "category": pl.String,
        "defect": pl.String,
        "defect_x": pl.Float64,
        "defect_y": pl.Float64,
    }
    whole = [label for label in labels.values() if FIDELITY in label and ALIGNMENT in label]
    if not whole:
        raise HoiError(
            f"no picture of {folder} has both labels yet", "rate some, then run this again"
        )
    table = pl.DataFrame(whole, schema=schema).sort("file", "prompt")
    with writing(out):
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
    for file in table["file"].unique():
        kept.put(images.open(Path(file).stem))
    kept.flush()
    text = io.BytesIO()
    table.write_csv(text)
    # Last, so that it never names a picture that is not there.
    replace_bytes(out / LABELS_FILE, text.getvalue(), out, durable=True, mode=0o644)
    return table


def _faults(folder: Path, study: Study) -> dict[str, Fault]:
    """By item, the kind of fault that most raters named (of equally many, the first by name), and
    the mean of the places where those saw it."""
    last: dict[Key, Answer | None] = {}
    for line in read_lines(folder, study):
        if line.vote and line.vote.question == FAULT and not line.vote.repeat:
            last[line.vote.key] = line.vote.answer
    named: dict[str, list[Fault]] = {}
    for (_, item, _, _), answer in last.items():
        if fault := read_fault(answer):
            named.setdefault(item, []).append(fault)
    found = {}
    for item, faults in named.items():
        counts = Counter(fault.kind for fault in faults)
        kind = min(counts, key=lambda name: (-counts[name], name))
        places = [(fault.x, fault.y) for fault in faults if fault.kind == kind]
        x, y = (round(fmean(axis), 3) for axis in zip(*places, strict=True))
        found[item] = Fault(kind, x, y)
    return found
