"""How time and memory grow with the number of images: `python -m benchmarks.scale [ROWS ...]`.

Candidate and verdict rows are made for real, in a home of their own, 12 categories each. Each
operation runs in a process of its own; printed are its seconds, those of the processor, its peak
memory, and the slope of the line through the log-log points of processor time, which a busy machine
hardly changes. `--out=FOLDER` keeps figures and plot. Pictures are not drawn: a table row names one
of a few stored pictures, and hashes of pictures are drawn at random.
"""

import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

SIZES = (30_000, 100_000, 300_000)
CATEGORIES = 12
PICTURES = 64
SHARE_ACCEPTED = 0.5
MAX_SLOPE, MAX_MEMORY_GIB = 1.05, 4.0
MIB = 1 << 20
PLOT = "scale.png"


def main() -> None:
    arguments = [one for one in sys.argv[1:] if not one.startswith("--")]
    sizes = [int(float(one)) for one in arguments] or list(SIZES)
    out = next((Path(one[6:]) for one in sys.argv[1:] if one.startswith("--out=")), None)
    found: list[dict[str, Any]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            home = Path(folder) / "home"
            _alone(make_home, home, size)
            for operation in OPERATIONS:
                one: dict[str, Any] = {
                    "operation": operation.__name__,
                    "rows": size,
                    **_alone(operation, home, size),
                }
                found.append(one)
                print(
                    f"{one['operation']:>12} {size:>9,} rows: {one['seconds']:8.2f} s, "
                    f"{one['cpu_seconds']:8.2f} s CPU, {one['peak_mib']:7.0f} MiB",
                    flush=True,
                )
    for name, slope in slopes(found).items():
        print(f"{name:>12} slope of CPU time {slope:.2f} (at most {MAX_SLOPE} is asked)")
    worst = max(one["peak_mib"] for one in found) / 1024
    print(f"peak memory {worst:.2f} GiB (at most {MAX_MEMORY_GIB} is asked)")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "scale.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        plot(found, out / PLOT)


def slopes(found: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of log CPU seconds over log rows by operation; those measured at two sizes or more.

    Example:
        >>> slopes([{"operation": "a", "rows": 10, "cpu_seconds": 1.0},
        ...         {"operation": "a", "rows": 100, "cpu_seconds": 10.0}])
        {'a': 1.0}
    """
    names = dict.fromkeys(one["operation"] for one in found)
    points = {
        name: [
            (math.log(one["rows"]), math.log(max(one["cpu_seconds"], 1e-3)))
            for one in found
            if one["operation"] == name
        ]
        for name in names
    }
    return {name: _slope(own) for name, own in points.items() if len(own) > 1}


def _slope(points: list[tuple[float, float]]) -> float:
    x, y = np.transpose(points)
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds and peak memory over rows, both log-log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, value, label in zip(
        axes, ("cpu_seconds", "peak_mib"), ("CPU seconds", "peak MiB"), strict=True
    ):
        for name in dict.fromkeys(one["operation"] for one in found):
            own = [one for one in found if one["operation"] == name]
            axis.loglog([one["rows"] for one in own], [one[value] for one in own], "o-", label=name)
        axis.set_xlabel("candidate rows")
        axis.set_ylabel(label)
    axes[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _alone(operation: Callable[[Path, int], None], home: Path, size: int) -> dict[str, float]:
    """`seconds`, `cpu_seconds` and `peak_mib` of an operation in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(operation, home, size, send))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise SystemExit(f"{operation.__name__} of {size} rows came to no end") from None
    finally:
        process.join()


def _measured(operation: Callable[[Path, int], None], home: Path, size: int, send: Any) -> None:
    start, cpu = time.monotonic(), time.process_time()
    operation(home, size)
    send.send(
        {
            "seconds": time.monotonic() - start,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
        }
    )


# --- the home ----------------------------------------------------------------------------------


def make_home(home: Path, size: int) -> None:
    """Publish prompts, candidates, verdicts and the ledger of `size` candidates."""
    from PIL import Image

    from hoi_assets.settings import ROOT
    from hoi_assets.store.versions import Store
    from hoi_assets.taxonomy import load_taxonomy

    store = Store(home, "tiny")
    rng = np.random.default_rng(0)
    pictures = [
        store.images.put(Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)))
        for _ in range(PICTURES)
    ]
    categories = list(load_taxonomy(ROOT / "data" / "taxonomy").categories)[:CATEGORIES]
    for place, category in enumerate(categories):
        own = size * (place + 1) // len(categories) - size * place // len(categories)
        prompts, candidates, verdicts = _rows(category, place, own, pictures)
        for asset, table in (
            ("detailed_prompts", prompts),
            ("candidate_images", candidates),
            ("verified_pairs", verdicts),
        ):
            with store.stage(asset, category) as staging:
                staging.write_table("rows", table)
                store.publish(staging, {"code_version": "1"}, None)
        for part in verdicts.iter_slices(50_000):
            store.ledger.record(
                {
                    "stage": "verified_pairs",
                    "partition": category,
                    "row_id": image,
                    "status": status,
                    "reason": reason,
                }
                for image, status, reason in part.select("image_id", "status", "reason").iter_rows()
            )


def _rows(
    category: str, place: int, size: int, pictures: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    from hoi_assets.ppv.candidates import CANDIDATE_ROWS
    from hoi_assets.ppv.detailed_prompts import DETAILED_PROMPT_ROWS
    from hoi_assets.ppv.verdicts import VERDICT_ROWS

    rng = np.random.default_rng([1, place])
    number = pl.int_range(size, eager=True)
    prompts_of = max(1, size // 4)
    image = pl.Series([f"{place:02x}{n:014x}" for n in range(size)])
    prompt = pl.Series([f"p{place:02x}{n // 4:013x}" for n in range(size)])
    text = pl.format("a hand with light skin holds thing {} of {}", number, pl.lit(category))
    accepted = pl.Series(rng.random(size) < SHARE_ACCEPTED)
    values = {
        "image_id": image,
        "prompt_id": prompt,
        "category": category,
        "prompt": text,
        "drawn_prompt": text,
        "seed": pl.Series(rng.integers(0, 1 << 31, size)),
        "pixels": pl.Series([pictures[n % len(pictures)] for n in range(size)]),
        "p_fidelity": pl.Series(rng.random(size)),
        "p_alignment": pl.Series(rng.random(size)),
        "status": pl.when(accepted).then(pl.lit("accepted")).otherwise(pl.lit("rejected")),
        "reason": pl.when(~accepted).then(pl.lit("low_fidelity")),
        "verifier_version": "0" * 16,
    }

    of_prompts = {
        "prompt_id": pl.Series([f"p{place:02x}{n:013x}" for n in range(prompts_of + 1)]),
        "base_prompt_id": pl.Series([f"b{place:02x}{n // 4:013x}" for n in range(prompts_of + 1)]),
        "category": category,
        "prompt": "a hand",
        "object": "thing",
        "status": "accepted",
    }
    return (
        _shaped(DETAILED_PROMPT_ROWS.schema, prompts_of + 1, of_prompts),
        _shaped(CANDIDATE_ROWS.schema, size, values | {"status": "accepted", "reason": None}),
        _shaped(VERDICT_ROWS.schema, size, values),
    )


def _shaped(schema: dict[str, Any], rows: int, given: dict[str, Any]) -> pl.DataFrame:
    """A table of the schema; a text stands in every row, and what is not given is null."""
    frame = pl.DataFrame({"_": pl.int_range(rows, eager=True)})
    columns = {name: given.get(name) for name in schema}
    return frame.with_columns(
        **{
            name: pl.lit(value) if value is None or isinstance(value, str) else value
            for name, value in columns.items()
        }
    ).select(pl.col(name).cast(kind) for name, kind in schema.items())


# --- what is measured --------------------------------------------------------------------------


def catalogue(home: Path, size: int) -> None:
    """Build the catalogue."""
    from hoi_assets.store.catalogue import rebuild
    from hoi_assets.store.versions import Store

    rebuild(Store(home, "tiny"))


def queries(home: Path, size: int) -> None:
    """Three queries of the fresh catalogue: counts, a join, one image."""
    from hoi_assets.store.catalogue import query
    from hoi_assets.store.versions import Store

    store = Store(home, "tiny")
    for sql in (
        "select category, status, count(*), avg(p_fidelity) from verified_pairs group by all",
        "select c.category, count(*) from candidate_images c join verified_pairs v"
        " using (image_id) where v.status = 'accepted' group by all",
        "select * from verified_pairs where image_id = '0000000000000001'",
    ):
        query(store, sql)


def scorecards(home: Path, size: int) -> None:
    """Aggregate scores of `size` images of three methods into a scorecard."""
    from hoi_assets.evaluation.scorecards import SCORES, make_scorecard
    from hoi_assets.settings import Evaluation

    number = pl.int_range(size, eager=True)
    methods = pl.Series(["base", "dreambooth", "finetuned"])
    values = {
        "suite": "hoi",
        "method": methods.gather(number % len(methods)),
        "category": pl.format("category{}", number % CATEGORIES),
        "seen": number % 2 == 0,
        "evaluation_prompt_id": pl.format("p{}", number // 12),
        "image_id": number.cast(pl.String).str.zfill(16),
        "pixels": number.cast(pl.String).str.zfill(64),
        "metric": "clip_score",
        "value": pl.Series(np.random.default_rng(2).random(size)),
    }
    scores = _shaped(SCORES.schema, size, values)
    make_scorecard(scores, Evaluation(bootstrap_samples=200))


def duplicates(home: Path, size: int) -> None:
    """Search `size` random hashes, one after the other, among those before."""
    from hoi_assets.near_hashes import NearHashes
    from hoi_assets.settings import Dataset

    drawn = np.random.default_rng(3).integers(0, 1 << 63, size, dtype=np.uint64).tolist()
    hashes = NearHashes(Dataset().perceptual_hash_distance)
    for bits in drawn:
        if not hashes.near(bits).size:
            hashes.add(bits)


def packaging(home: Path, size: int) -> None:
    """Write the accepted pairs as files, pictures included (16 px)."""
    from hoi_assets.ppv.dataset_files import write_dataset_files
    from hoi_assets.ppv.packaging import _accepted_pairs, _decide
    from hoi_assets.ppv.splits import split_by_base_prompt
    from hoi_assets.settings import ROOT
    from hoi_assets.store.versions import Store
    from hoi_assets.taxonomy import load_taxonomy

    store = Store(home, "tiny")
    tables = {
        asset: {key: store.require(asset, key).table("rows") for key in store.partitions(asset)}
        for asset in ("verified_pairs", "detailed_prompts")
    }
    taxonomy = load_taxonomy(ROOT / "data" / "taxonomy")
    pairs = _accepted_pairs(taxonomy, tables["verified_pairs"], tables["detailed_prompts"])
    splits = split_by_base_prompt(pairs["base_prompt_id"], 0.1, 0.1)
    decided = _decide(pairs, {}, splits)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset_files(Path(folder), decided, store.images.png_bytes)


def stale(home: Path, size: int) -> None:
    """What `hoi stale` computes: the state of every asset and partition, files checked."""
    from hoi_assets.defs.project import load_project
    from hoi_assets.publishing.staleness import status

    project = load_project("tiny", home)
    status(project.graph, project.platform.settings, project.platform.store)


OPERATIONS = (catalogue, queries, scorecards, duplicates, packaging, stale)


if __name__ == "__main__":
    main()
