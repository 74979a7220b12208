"""Scores of images by every judge, each image scored once per judge."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from hoi_assets.engines.batch_map import Compute
from hoi_assets.engines.cached_scores import (
    Metric,
    Rows,
    Values,
    cached_scores,
    clip_score_metric,
)
from hoi_assets.engines.text_tokens import prompt_values
from hoi_assets.engines.vilt.answers import cached_answers
from hoi_assets.engines.vilt.pair_scores import cached_pair_scores
from hoi_assets.evaluation.component_judges import component_judges
from hoi_assets.evaluation.read_prompts import count_read_tokens, phrases_of
from hoi_assets.evaluation.scorecards import SCORES
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings, resolve_path
from hoi_assets.store.versions import Published, Store

CARRIED = (
    "suite",
    "method",
    "category",
    "scenario",
    "seen",
    "evaluation_prompt_id",
    "image_id",
    "pixels",
)

Describe = Callable[[Sequence[str]], list[dict[str, Any]]]


def score_images(
    store: Store, settings: Settings, images: pl.DataFrame, verifier: Published | None, log: Log
) -> pl.DataFrame:
    """Score images as `score_rows` does, and with the verifier where there is one.

    Args:
        images: rows of `hoi_evaluation_images` that were drawn.

    Returns:
        Table of SCORES (scenario is null here). The examiner's values are 0 or 1.
    """
    rows = images.to_dicts()
    found = score_rows(store, settings, rows, log)
    if verifier is not None:
        pairs = [(row["pixels"], row["prompt"]) for row in rows]
        verdicts = cached_pair_scores(store, settings, pairs, verifier, log)
        found = [
            {
                "verifier_fidelity": verdicts[pair].fidelity,
                "verifier_alignment": verdicts[pair].alignment,
                **values,
            }
            for pair, values in zip(pairs, found, strict=True)
        ]
    counts = count_read_tokens(store, settings, rows, verifier)
    return pl.DataFrame(
        [
            {
                **{name: row.get(name) for name in CARRIED},
                "metric": metric,
                "value": None if value is None else float(value),
                **prompt_values(read.get(metric)),
            }
            for row, values, read in zip(rows, found, counts, strict=True)
            for metric, value in values.items()
        ],
        schema=SCORES.schema,
    )


def score_rows(store: Store, settings: Settings, rows: Rows, log: Log) -> list[Values]:
    """Every metric of each row, by the judges that the profile names; each picture once per judge.

    Args:
        rows: with `pixels` and `prompt`. What else a judge reads decides whether it judges them:
            `phrases` (noun phrases) BLIP-VQA; `questions` (one per component) the critic and the
            component examiner; category, object, colour, side and suite the examiner.
            A row's place among them is its place in the batches.

    Returns:
        clip_score, image_reward, hpsv3, blip_vqa (None without phrases), component_accuracy and
        examiner_components (shares of components that hold; None without questions), and the
        examiner's 0 or 1.
    """
    found: list[Values] = [{} for _ in rows]
    if not rows:
        return found
    for judge in judges(settings):
        if set(judge.reads) <= rows[0].keys():
            for values, more in zip(found, cached_scores(store, judge, rows, log), strict=True):
                values |= more
    if "questions" in rows[0]:
        for name, ref, threshold in component_judges(settings):
            shares = _components_that_hold(store, settings, ref, threshold, rows, log)
            for values, share in zip(found, shares, strict=True):
                values[name] = share
    return found


def reference_scores(
    store: Store,
    settings: Settings,
    verifier: Published | None,
    log: Log,
    describe: Describe | None = None,
) -> dict[str, list[float]]:
    """Scores of the reference set (clean renders with true captions), by metric.

    The examiner's metrics are left out: they are shares already. Empty without a reference pool.

    Args:
        describe: further fields of a row by its prompt, e.g. `phrases`; see `score_rows`.
    """
    from hoi_assets.store.scene_pool import open_image, read_pool

    if settings.evaluation.reference_pool is None:
        return {}
    folder = resolve_path(settings.evaluation.reference_pool)
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
    if describe is not None:
        for row, more in zip(rows, describe([row["prompt"] for row in rows]), strict=True):
            row |= more
    table = pl.DataFrame(rows, infer_schema_length=None)
    scores = score_images(store, settings, table, verifier, log)
    return {
        str(metric): part["value"].drop_nulls().to_list()
        for (metric,), part in scores.group_by("metric", maintain_order=True)
        if not str(metric).startswith("examiner")
    }


def judges(settings: Settings) -> list[Metric]:
    """The judges that the profile names."""
    from hoi_assets.engines.blip_vqa import blip_text_reader
    from hoi_assets.engines.image_reward import image_reward_text_reader

    models, compute = settings.models, Compute.of(settings)
    chosen = [
        clip_score_metric(settings),
        Metric(
            "image_reward",
            models.image_reward,
            compute,
            ("prompt",),
            _image_reward(models.image_reward, settings.device),
            image_reward_text_reader,
        ),
    ]
    if models.examiner is not None:
        asked = ("category", "object", "colour", "side", "suite")
        score = _examiner(models.examiner, settings.device)
        chosen.append(Metric("examiner", models.examiner, compute, asked, score))
    if models.blip_vqa is not None:
        chosen.append(
            Metric(
                "blip_vqa",
                models.blip_vqa,
                compute,
                ("phrases",),
                _blip_vqa(models.blip_vqa, settings.device),
                blip_text_reader,
                phrases_of,
            )
        )
    if models.hpsv3 is not None:
        score = _hpsv3(models.hpsv3, settings.device)
        chosen.append(Metric("hpsv3", models.hpsv3, compute, ("prompt",), score))
    return chosen


def _components_that_hold(
    store: Store, settings: Settings, ref: ModelRef, threshold: float, rows: Rows, log: Log
) -> list[float | None]:
    asked = [(row["pixels"], question) for row in rows for question in row["questions"]]
    p_yes = cached_answers(store, settings, ref, asked, log)
    shares: list[float | None] = []
    for row in rows:
        holds = [p_yes[row["pixels"], question] >= threshold for question in row["questions"]]
        shares.append(sum(holds) / len(holds) if holds else None)
    return shares


def _image_reward(ref: ModelRef, device: str) -> Callable[..., list[Values]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.image_reward import image_reward_scores, load_image_reward

        model = load_image_reward(ref, device)
        values = image_reward_scores(model, images, [row["prompt"] for row in rows], slots)
        return [{"image_reward": float(value)} for value in values]

    return compute


def _blip_vqa(ref: ModelRef, device: str) -> Callable[..., list[Values]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.blip_vqa import blip_vqa_scores, load_blip_vqa

        model = load_blip_vqa(ref, device)
        values = blip_vqa_scores(model, images, [row["phrases"] for row in rows], slots)
        return [{"blip_vqa": None if math.isnan(value) else float(value)} for value in values]

    return compute


def _hpsv3(ref: ModelRef, device: str) -> Callable[..., list[Values]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.hpsv3.loading import load_hpsv3
        from hoi_assets.engines.hpsv3.scoring import hpsv3_scores

        scorer = load_hpsv3(ref, device)
        values = hpsv3_scores(scorer, images, [row["prompt"] for row in rows], slots)
        return [{"hpsv3": float(mean)} for mean, _ in values]

    return compute


def _examiner(ref: ModelRef, device: str) -> Callable[..., list[Values]]:
    def compute(images: Any, rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.examiner import agrees, examine, load_examiner

        model = load_examiner(ref, device)
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


def _examined(right: dict[str, bool], row: dict[str, Any]) -> Values:
    if row["suite"] == "general":
        right = {kind: value for kind, value in right.items() if kind != "defect_free"}
    return {
        **{f"examiner_{kind}": float(value) for kind, value in right.items()},
        "examiner_all": float(all(right.values())),
    }
