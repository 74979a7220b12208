"""Scores a folder of images: decomposes the prompts, runs the metrics, writes table and record."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.progress import Log
from hoi_assets.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from hoi_assets.detailscribe.decomposers import Decomposer
    from hoi_assets.evaluation.folder_reading import FolderImage
    from hoi_assets.evaluation.folder_scores import Ask, Asked
    from hoi_assets.evaluation.run_metrics import Rows
    from hoi_assets.evaluation.vlm_judge import EndpointJudge
    from hoi_assets.store.versions import Store

ID_DIGITS = 16
LOGGED_FAILURES = 20


@dataclass(frozen=True)
class FolderScores:
    """What `score_folder` wrote, and what to print.

    Attributes:
        table, record: paths.
        summary: a row per metric, as `folder_scores.summarise` gives it.
        failed: how many files or lines could not be scored.
        reference: name of the set that percentiles are taken in.
        complaints: scores of the reference images that are not as expected.
    """

    table: Path
    record: Path
    summary: "pl.DataFrame"
    failed: int
    reference: str
    complaints: list[str]


def score_folder(
    settings: Settings,
    home: Path,
    images: Path,
    prompts: Path,
    out: Path | None = None,
    reference: Path | None = None,
    log: Log = print,
) -> FolderScores:
    """Score a folder; write the table of scores and, beside it, the reproduction record.

    Args:
        home: its ledger caches scores, so that none is computed twice.
        out: None takes `<home>/scores/<folder>-<hash of the inputs>.parquet`.
        reference: a table of scores; None takes the profile's reference images, scored by the same
            models (ratings by people and endpoints have no percentile).

    Raises:
        HoiError: inputs that cannot be read at all, see `folder_reading.read_folder`, or judges
            that cannot be loaded.
    """
    import torch

    from hoi_assets.detailscribe.decomposers import build_decomposer
    from hoi_assets.evaluation import folder_scores as folder
    from hoi_assets.evaluation import reproduction
    from hoi_assets.evaluation.folder_reading import read_folder
    from hoi_assets.evaluation.run_metrics import reference_scores
    from hoi_assets.evaluation.vlm_judge import EndpointJudge
    from hoi_assets.hashing import digest, digest_file

    if out is not None:
        folder.check_table_name(out)
    ranked_by = None if reference is None else folder.read_scores(reference)
    pictures = read_folder(images, prompts)
    _report(pictures, prompts, log)
    torch.set_num_threads(settings.threads)
    store = folder.folder_store(home, images, pictures)
    decomposer = build_decomposer(settings.decomposer)

    def describe(texts: Sequence[str]) -> list[dict[str, Any]]:
        return describe_prompts(texts, decomposer, store, log)

    judge = None if settings.judge.endpoint is None else EndpointJudge(settings.judge)
    ask = None if judge is None else _rated(judge, log)
    scores = folder.score_pictures(store, settings, pictures, describe, log, ask)
    if ranked_by is None:
        ranked_by = reference_scores(store, settings, None, log, describe)
    scores = folder.with_percentiles(scores, ranked_by)
    summary = folder.summarise_folder(scores, ranked_by, settings.evaluation.bootstrap_samples)
    inputs = _inputs(pictures, prompts)
    if out is None:
        out = home / "scores" / f"{images.resolve().name}-{digest(inputs)[:ID_DIGITS]}.parquet"
    folder.write_scores(scores, out)
    facts = {
        "inputs": inputs,
        "decomposer": dict(decomposer.identity),
        "judge": None if judge is None else dict(judge.identity),
        "reference_set": {
            "file": reference.name if reference else settings.evaluation.reference_pool,
            "sha256": digest_file(reference) if reference else None,
            "scores": digest(sorted(ranked_by.items())),
        },
        "order": "scores depend on pixels and prompts, not on names or the order of files",
        "summary": summary.to_dicts(),
        "output": {
            "file": out.name,
            "sha256": digest_file(out),
            "scores": folder.scores_digest(scores),
        },
    }
    record, complaints = reproduction.record(settings, **facts)
    place = out.with_name(f"{out.stem}.record.json")
    folder.write_file(place, _pretty(record))
    return FolderScores(
        table=out,
        record=place,
        summary=summary,
        failed=sum(one.pixels is None for one in pictures),
        reference=_named(reference, settings),
        complaints=complaints,
    )


def _report(pictures: Sequence["FolderImage"], prompts: Path, log: Log) -> None:
    """Log the first files and lines that cannot be scored, as `file:line: picture: reason`."""
    failed = [one for one in pictures if one.pixels is None]
    for one in failed[:LOGGED_FAILURES]:
        place = f"{prompts.name}:{one.line}" if one.line else "folder"
        log(": ".join(part for part in (place, one.file, one.reason) if part))
    if len(failed) > LOGGED_FAILURES:
        log(f"and {len(failed) - LOGGED_FAILURES} more; their reasons are in the table")


def describe_prompts(
    prompts: Sequence[str], decomposer: "Decomposer", store: "Store", log: Log
) -> list[dict[str, Any]]:
    """Fields that `run_metrics.score_rows` needs of each prompt.

    Returns:
        Per prompt: phrases and questions of its components, and the reason where it has none.
    """
    from hoi_assets.detailscribe.decompose import decompose
    from hoi_assets.engines.blip_vqa import noun_phrases

    distinct = list(dict.fromkeys(prompts))
    rows = decompose([(text, text) for text in distinct], decomposer, store.ledger, log)
    parts = {
        row.prompt: {
            "phrases": list(noun_phrases(row.components)),
            "questions": [one.question for one in row.components],
            "reason": row.reason,
        }
        for row in rows
    }
    return [parts[prompt] for prompt in prompts]


def _rated(judge: "EndpointJudge", log: Log) -> "Ask":
    """A function that asks the judge for its rating, 1 to 5, and its yes (1) or no (0)."""
    from hoi_assets.evaluation.vlm_judge import RatingRequest, rate_pictures
    from hoi_assets.llm.shown_image import ShownImage

    def ask(store: "Store", rows: "Rows") -> "Asked":
        requests = [
            RatingRequest(row["pixels"], row["prompt"], ShownImage.of_store(store, row["pixels"]))
            for row in rows
        ]
        found: Asked = []
        for one in rate_pictures(requests, judge, store.ledger, log):
            rating = None if one.rating is None else float(one.rating)
            shows = None if one.shows is None else float(one.shows)
            found.append({"judge_rating": (rating, one.reason), "judge_yes": (shows, one.reason)})
        return found

    return ask


def _inputs(pictures: Sequence["FolderImage"], prompts: Path) -> dict[str, Any]:
    """Hashes of what was read: the same however the files are called, and by name."""
    from hoi_assets.hashing import digest, digest_file

    scored = [(one.pixels, one.prompt) for one in pictures if one.pixels]
    return {
        "prompts": {"file": prompts.name, "sha256": digest_file(prompts)},
        "content": digest(sorted(scored)),
        "pixels": {one.file: one.pixels for one in pictures if one.pixels},
        "failed": [
            {"file": one.file, "line": one.line, "reason": one.reason}
            for one in pictures
            if not one.pixels
        ],
    }


def _named(reference: Path | None, settings: Settings) -> str:
    if reference is not None:
        return reference.name
    pool = settings.evaluation.reference_pool
    return f"{pool} (split reference)" if pool else "no reference set"


def _pretty(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
