"""`candidate_images` under Dagster against hand-written diffusers loops: same prompts, noise,
steps and weights, one after the other in one process."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import yaml

from benchmarks.common import report
from hoi_assets.settings import PROFILES

PER_PROMPT = 4
ROUNDS = 3
CATEGORY = "power_sphere"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        home = Path(folder) / "home"
        project = _project(Path(folder), home)
        job = project.pipelines.resolve_job_def("ppv_category")
        _run(project.pipelines.resolve_job_def("verifier_training"), instance, None)
        _run(job, instance, CATEGORY, "detailed_prompts", "instance_images", "category_loras")
        # The first run draws; the later ones are forced, into image stores that forgot.
        _run(job, instance, CATEGORY, "candidate_images")
        rows = project.platform.store.require("candidate_images", CATEGORY).table("rows")
        lora = project.platform.store.require("category_loras", CATEGORY).file("lora")
        by_hand = _by_hand(project.platform.settings, rows, lora, Path(folder))
        under_dagster, batched = [], []
        # Turn by turn, so that a slow minute of the machine meets both.
        for _ in range(ROUNDS):
            _forget_images(project.platform.store)
            under_dagster.append(_timed(lambda: _run(job, instance, CATEGORY, "candidate_images")))
            batched.append(
                _timed(lambda: by_hand(rows.height, project.platform.settings.sampling.batch_size))
            )
        few = max(8, rows.height // 8)
        single = few / _timed(lambda: by_hand(few, 1))
    count = rows.height
    rate = count / min(under_dagster)
    report(
        "orchestration/against a batched diffusers loop",
        f"{rate * min(batched) / count:.2f} ({rate:.2f} and {count / min(batched):.2f} images/s, "
        f"{count} images, best of {ROUNDS})",
        "at least 0.95",
    )
    report(
        "orchestration/against one prompt at a time",
        f"{rate / single:.2f} ({rate:.2f} and {single:.2f} images/s)",
        "at least 1.5",
    )


def _project(folder: Path, home: Path):  # type: ignore[no-untyped-def]
    from hoi_assets.defs.project import load_project

    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    profile["candidates"] = {**profile.get("candidates", {}), "per_prompt": PER_PROMPT}
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return load_project(str(path), home)


def _run(
    job: dg.JobDefinition, instance: dg.DagsterInstance, category: str | None, *assets: str
) -> None:
    result = job.execute_in_process(
        instance=instance,
        partition_key=category,
        asset_selection=[dg.AssetKey(name) for name in assets] or None,
        tags={"hoi/force": "true"},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    if not result.success:
        raise SystemExit("the benchmark's own run failed")


def _forget_images(store) -> None:  # type: ignore[no-untyped-def]
    """Forget what was drawn for candidates, so that it is drawn again."""
    import sqlite3

    published = store.current("candidate_images", CATEGORY)
    if published is None:
        return
    ids = set(published.table("rows")["image_id"])
    with sqlite3.connect(store.ledger.path) as connection:
        found = connection.execute("select key from made where kind = 'image'").fetchall()
        keys = [(key,) for (key,) in found if key[:16] in ids]
        connection.executemany("delete from made where kind = 'image' and key = ?", keys)


def _by_hand(settings, rows: pl.DataFrame, lora: Path, folder: Path):  # type: ignore[no-untyped-def]
    """A function of (how many rows, batch size) that draws them and saves them as PNG."""
    from benchmarks.sampling_loop import batched_loop, load

    sampling = settings.sampling
    pipe = load(settings.models.base.folder, lora, sampling.scheduler)

    def draw(count: int, batch_size: int) -> None:
        images = batched_loop(
            pipe,
            rows["drawn_prompt"].to_list()[:count],
            rows["seed"].to_list()[:count],
            sampling.num_inference_steps,
            sampling.guidance_scale,
            sampling.width,
            sampling.height,
            batch_size,
        )
        for number, image in enumerate(images):
            image.save(folder / f"{number}.png")

    return draw


def _timed(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
