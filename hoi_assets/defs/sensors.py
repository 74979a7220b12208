"""Sensors that ask for a regeneration when what people or models bring has changed; shipped
stopped. Each remembers in its cursor what it has seen, and asks once for a change."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from hoi_assets.defs.project import Project
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.publishing.staleness import status
from hoi_assets.settings import LABELS_FILE, resolve_path
from hoi_assets.store.weights import model_fingerprint

LABELS_EVERY_S, MODELS_EVERY_S = 600, 600
PAIRS = "verifier_training_pairs"
# What the benchmark draws, critiques and scores with.
BENCHMARK_MODELS = ("benchmark", "critic", "clip", "image_reward", "component_examiner")


def retrain_on_new_labels(project: Project, job: dg.JobDefinition) -> dg.SensorDefinition:
    """Retrain the verifier, and all that follows, when enough new labels came."""

    @dg.sensor(
        name="retrain_on_new_labels",
        job=job,
        minimum_interval_seconds=LABELS_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="When schedules.retrain_after_labels labels were added to "
        "verifier.labels_folder since the verifier was trained: retrains it, and what follows.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        platform = project.platform
        wanted = platform.settings.schedules.retrain_after_labels
        folder = platform.settings.verifier.labels_folder
        if folder is None:
            return dg.SkipReason("verifier.labels_folder is not set: renders carry their labels")
        labels = count_labels(resolve_path(folder) / LABELS_FILE)
        (pairs,) = status(project.graph, platform.settings, platform.store, [(PAIRS, None)])
        seen = int(context.cursor) if context.cursor else None
        if pairs.state == "fresh":
            seen = labels  # trained on all of them, whoever launched it
        elif seen is None:
            seen = 0 if pairs.published is None else labels
        new = labels - seen
        if new < wanted:
            context.update_cursor(str(seen))
            return dg.SkipReason(f"{max(new, 0)} new labels of {wanted}")
        return dg.SensorResult([dg.RunRequest(run_key=f"labels-{labels}")], cursor=str(labels))

    return sensor


def benchmark_on_changed_model(
    project: Project, job: dg.JobDefinition, scenarios: Sequence[str]
) -> dg.SensorDefinition:
    """Run the benchmark when a model that it uses changed.

    Args:
        scenarios: the partitions to run.
    """

    @dg.sensor(
        name="benchmark_on_changed_model",
        job=job,
        minimum_interval_seconds=MODELS_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="When the weights of a model of the benchmark changed, or the profile names "
        "others: runs the scenarios that this makes stale. The first look only notes them.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = _models(project)
        before = json.loads(context.cursor) if context.cursor else None
        cursor = json.dumps(now, sort_keys=True)
        if before is None:
            context.update_cursor(cursor)
            return dg.SkipReason("noted the models of the benchmark; a later change is acted on")
        changed = sorted(name for name in now if now[name] != before.get(name))
        if not changed:
            return dg.SkipReason("no model of the benchmark changed")
        config = {"partitions": list(scenarios), "only": "stale"}
        request = dg.RunRequest(
            run_key=f"models-{digest(now)[:16]}",
            run_config={"ops": {f"{job.name}_loop": {"config": config}}},
            tags={"hoi/changed_models": ", ".join(changed)},
        )
        return dg.SensorResult([request], cursor=cursor)

    return sensor


def count_labels(path: Path) -> int:
    """Rows of a file of labels.

    Raises:
        HoiError: it is missing or no CSV file.
    """
    import polars as pl

    try:
        return pl.read_csv(path, infer_schema=False).height
    except (OSError, pl.exceptions.PolarsError) as error:
        raise HoiError(
            f"labels {path} cannot be counted: {error}",
            "write them with `hoi rate labels`, or correct verifier.labels_folder",
        ) from error


def _models(project: Project) -> dict[str, str]:
    """Fingerprints of the benchmark's models, by their name in the profile."""
    models: Any = project.platform.settings.models
    named = {name: getattr(models, name, None) for name in BENCHMARK_MODELS}
    return {name: model_fingerprint(ref) for name, ref in named.items() if ref is not None}
