"""`candidate_images` under Dagster against hand-written diffusers loops: same prompts, noise,
steps and weights, one after the other in one process; then again with one edited base prompt."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import yaml

from benchmarks.common import LITTLE_WORK, report, write_profile
from hoi_assets.defs.project import Project, load_project
from hoi_assets.settings import ROOT

ROUNDS = 2
ONE_BY_ONE = 3  # pictures
CATEGORY = "power_sphere"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        _measure(Path(folder), instance)


def _measure(folder: Path, instance: dg.DagsterInstance) -> None:
    project = load_project(str(write_profile(folder, LITTLE_WORK)), folder / "home")
    settings, store = project.platform.settings, project.platform.store
    read_taxonomy(project, instance)
    for assets in (["detailed_prompts", "instance_images", "category_loras"], ["candidate_images"]):
        # The first run draws; the later ones are forced, into image stores that forgot.
        run_assets(project, instance, *assets)
    rows = store.require("candidate_images", CATEGORY).table("rows")
    lora = store.require("category_loras", CATEGORY).file("lora")
    by_hand = _by_hand(settings, rows, lora, folder)
    under_dagster, batched = [], []
    # Turn by turn, so that a slow minute of the machine meets both.
    for _ in range(ROUNDS):
        forget_images(store)
        under_dagster.append(timed(lambda: run_assets(project, instance, "candidate_images")))
        batched.append(timed(lambda: by_hand(rows.height, settings.sampling.batch_size)))
    count = rows.height
    rate = count / min(under_dagster)
    report(
        "orchestration/against a batched diffusers loop",
        f"{rate * min(batched) / count:.2f} ({rate:.2f} and {count / min(batched):.2f} images/s, "
        f"{count} images, best of {ROUNDS})",
        "at least 0.95",
    )
    single = ONE_BY_ONE / timed(lambda: by_hand(ONE_BY_ONE, 1))
    report(
        "orchestration/against one prompt at a time",
        f"{rate / single:.2f} ({rate:.2f} and {single:.2f} images/s)",
        "at least 1.5",
    )
    text, edited = _edit_one_prompt(folder)
    read_taxonomy(edited, instance, force=False)
    run_assets(edited, instance, "detailed_prompts", "candidate_images", force=False)
    after = store.require("candidate_images", CATEGORY).table("rows")
    new = after.filter(~pl.col("image_id").is_in(rows["image_id"].to_list()))
    prompts = store.require("detailed_prompts", CATEGORY).table("rows")
    own = prompts.filter(pl.col("base_prompt") == text)["prompt_id"].to_list()
    report(
        "orchestration/one edited base prompt",
        f"{new.height} of {after.height} candidates drawn anew, "
        f"{new.filter(~pl.col('prompt_id').is_in(own)).height} of them of other prompts",
        "0 of other prompts",
    )


def read_taxonomy(project: Project, instance: dg.DagsterInstance, force: bool = True) -> None:
    _run_job(project, instance, "verifier_training", None, ["base_prompt_taxonomy"], force)


def run_assets(
    project: Project, instance: dg.DagsterInstance, *assets: str, force: bool = True
) -> None:
    _run_job(project, instance, "ppv_category", CATEGORY, assets, force)


def _run_job(
    project: Project,
    instance: dg.DagsterInstance,
    job: str,
    category: str | None,
    assets: Sequence[str],
    force: bool,
) -> None:
    result = project.pipelines.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=category,
        asset_selection=[dg.AssetKey(name) for name in assets],
        tags={"hoi/force": "true"} if force else {},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    if not result.success:
        raise SystemExit("the benchmark's own run failed")


def _edit_one_prompt(folder: Path) -> tuple[str, Project]:
    """The new text of a base prompt, and the project over a taxonomy that holds it."""
    taxonomy = folder / "taxonomy"
    shutil.copytree(ROOT / "data" / "taxonomy", taxonomy)
    path = taxonomy / "categories" / f"{CATEGORY}.yaml"
    text = path.read_text(encoding="utf-8")
    old = yaml.safe_load(text)["base_prompts"][0]["text"]
    new = f"{old} today"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    profile = write_profile(folder, {**LITTLE_WORK, "taxonomy": str(taxonomy)})
    return new, load_project(str(profile), folder / "home")


def forget_images(store) -> None:  # type: ignore[no-untyped-def]
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


def timed(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
