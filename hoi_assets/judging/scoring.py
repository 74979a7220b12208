"""Scores of images by every judge, each image scored once per judge."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.judging.verdicts import pair_scores
from hoi_assets.progress import Say
from hoi_assets.settings import ROOT, ModelRef, Settings
from hoi_assets.store.hashing import digest
from hoi_assets.store.versions import Published, Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

SCORING_VERSION = "1"  # part of every score's key: raise it when a judge computes otherwise
CHUNK = 128
CARRIED = ("suite", "method", "category", "seen", "evaluation_prompt_id", "image_id")

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Judge:
    """One judge: its name, its weights, and `score(images, rows, slots)` -> JSON-able values."""

    name: str
    ref: ModelRef
    reads: tuple[str, ...]
    score: Callable[[Sequence["Image.Image"], Rows, Sequence[int]], list[dict[str, float]]]


def score(
    store: Store, settings: Settings, images: pl.DataFrame, verifier: Published, say: Say
) -> pl.DataFrame:
    """Score images with the verifier, CLIPScore, ImageReward and, where there is one, the examiner.

    Args:
        images: rows of `hoi_evaluation_images` that were drawn.

    Returns:
        Long table: suite, method, category, seen, evaluation_prompt_id, image_id, metric, value.
        The examiner's metrics are 0 or 1.
    """
    rows = images.to_dicts()
    pairs = [(row["pixels"], row["prompt"]) for row in rows]
    verdicts = pair_scores(store, settings, pairs, verifier, say)
    found: list[dict[str, float]] = [
        dict(zip(("verifier_fidelity", "verifier_alignment"), verdicts[pair], strict=True))
        for pair in pairs
    ]
    for judge in judges(settings, say):
        for values, more in zip(found, _score(store, judge, rows, say), strict=True):
            values |= more
    return pl.DataFrame(
        [
            {**{name: row[name] for name in CARRIED}, "metric": metric, "value": float(value)}
            for row, values in zip(rows, found, strict=True)
            for metric, value in values.items()
        ],
        infer_schema_length=None,
    )


def reference_scores(
    store: Store, settings: Settings, verifier: Published, say: Say
) -> dict[str, list[float]]:
    """Scores of the reference pictures (clean renders with true captions), by metric.

    The examiner's metrics have none: they are shares already. Empty without a reference pool.
    """
    from hoi_assets.scenes.pool import open_image, read_pool

    if settings.evaluation.reference_pool is None:
        return {}
    folder = ROOT / settings.evaluation.reference_pool
    rows = [
        {
            **dict.fromkeys(CARRIED),
            "suite": "hoi" if scene["category"] else "general",
            "pixels": store.images.put(open_image(folder, scene)),
            "prompt": scene["true_caption"],
            **{name: scene[name] for name in ("category", "object", "colour", "side")},
        }
        for scene in read_pool(folder, "reference").iter_rows(named=True)
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    scores = score(store, settings, table, verifier, say)
    return {
        str(metric): part["value"].to_list()
        for (metric,), part in scores.group_by("metric", maintain_order=True)
        if not str(metric).startswith("examiner")
    }


def judges(settings: Settings, say: Say) -> list[Judge]:
    """The judges that the profile names."""
    models = settings.models
    chosen = [
        Judge("clip_score", models.clip, ("prompt",), _clip(settings, say)),
        Judge("image_reward", models.image_reward, ("prompt",), _image_reward(settings, say)),
    ]
    if models.examiner is not None:
        asked = ("category", "object", "colour", "side", "suite")
        chosen.append(Judge("examiner", models.examiner, asked, _examiner(settings)))
    return chosen


def _clip(settings: Settings, say: Say) -> Callable[..., list[dict[str, float]]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[dict[str, float]]:
        from hoi_assets.judging.metrics import clip_scores, load_clip

        model = load_clip(settings.models.clip, settings.device)
        scores = clip_scores(model, images, [row["prompt"] for row in rows], slots)
        _say_truncated("CLIPScore", scores.truncated, say)
        return [{"clip_score": float(value)} for value in scores.values]

    return compute


def _image_reward(settings: Settings, say: Say) -> Callable[..., list[dict[str, float]]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[dict[str, float]]:
        from hoi_assets.judging.metrics import image_reward_scores, load_image_reward

        model = load_image_reward(settings.models.image_reward, settings.device)
        scores = image_reward_scores(model, images, [row["prompt"] for row in rows], slots)
        _say_truncated("ImageReward", scores.truncated, say)
        return [{"image_reward": float(value)} for value in scores.values]

    return compute


def _say_truncated(name: str, prompts: Sequence[int], say: Say) -> None:
    if prompts:
        say(f"{name}: {len(prompts)} prompts are longer than it reads; their ends were not judged")


def _examiner(settings: Settings) -> Callable[..., list[dict[str, float]]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[dict[str, float]]:
        from hoi_assets.judging.examiner import agrees, examine, load_examiner

        assert settings.models.examiner is not None
        model = load_examiner(settings.models.examiner, settings.device)
        return [
            _examined(agrees(truth, _asked(row)), row)
            for truth, row in zip(examine(model, images, slots), rows, strict=True)
        ]

    return compute


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """A general prompt asks for an object and its colour, not for a hand."""
    if row["suite"] == "general":
        return {"object": row["object"], "colour": row["colour"]}
    return {name: row[name] for name in ("category", "object", "colour", "side")}


def _examined(right: dict[str, bool], row: dict[str, Any]) -> dict[str, float]:
    if row["suite"] == "general":
        right = {kind: value for kind, value in right.items() if kind != "defect_free"}
    return {
        **{f"examiner_{kind}": float(value) for kind, value in right.items()},
        "examiner_all": float(all(right.values())),
    }


def _score(store: Store, judge: Judge, rows: Rows, say: Say) -> Iterable[dict[str, float]]:
    model = model_digest(judge.ref)
    keys = [
        digest(
            {
                "scoring": SCORING_VERSION,
                "judge": judge.name,
                "model": model,
                "pixels": row["pixels"],
                "asked": {name: row[name] for name in judge.reads},
            }
        )
        for row in rows
    ]
    known = store.ledger.made("score", keys)
    todo = [(slot, key) for slot, key in enumerate(dict.fromkeys(keys)) if key not in known]
    place = {key: index for index, key in reversed(list(enumerate(keys)))}
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        asked = [rows[place[key]] for _, key in chunk]
        values = judge.score(
            [store.images.open(row["pixels"]) for row in asked], asked, [slot for slot, _ in chunk]
        )
        known |= store.ledger.make(
            "score", {key: value for (_, key), value in zip(chunk, values, strict=True)}
        )
        say(f"{judge.name}: {start + len(chunk)}/{len(todo)} images scored")
    return [known[key] for key in keys]
