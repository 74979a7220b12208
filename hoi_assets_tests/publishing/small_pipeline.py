"""A small line of real stages over a taxonomy of text files: what the tests of plumbing run.

It is also a code location of its own, so that a daemon can load it:
`dagster dev -m hoi_assets_tests.publishing.small_pipeline` with HOI_PROFILE and HOI_HOME set.
"""

from pathlib import Path

import dagster as dg
import polars as pl
import yaml

from hoi_assets.definitions import build_definitions, build_line
from hoi_assets.defs.automation import Line
from hoi_assets.publishing.expectations import measure, not_null, row_count, share, suite, unique
from hoi_assets.publishing.stage import Image, Markdown, Result, Work, stage
from hoi_assets.store.versions import Staging


def count_call(work: Work) -> None:
    """Leave a trace that the function ran."""
    with (work.store.home / "calls.txt").open("a", encoding="utf-8") as file:
        file.write(f"{work.stage_name} {work.partition or '_'}\n")


def read_category(work: Work) -> list[str]:
    path = work.settings.taxonomy_folder / "categories" / f"{work.category}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["prompts"]


@stage("dictionary", code_version="1", group="small")
def dictionary(work: Work, out: Staging) -> Result:
    count_call(work)
    out.write_table("rows", pl.DataFrame({"word": ["a", "red", "ball"]}))
    return Result(metadata={"words": 3})


@stage(
    "prompts",
    partitions="hand_pose",
    deps=["dictionary"],
    code_version="1",
    settings=["prompter"],
    inputs=lambda work: {"category": read_category(work)},
    group="small",
)
def prompts(work: Work, out: Staging) -> Result:
    count_call(work)
    texts = read_category(work)
    status = ["failed" if text == "unlucky" else "accepted" for text in texts]
    table = pl.DataFrame(
        {
            "prompt_id": [f"{work.category}-{n}" for n in range(len(texts))],
            "category": work.category,
            "prompt": texts,
            "status": status,
            "reason": [None if s == "accepted" else "no reply" for s in status],
        },
        schema_overrides={"reason": pl.String},
    )
    out.write_table("rows", table)
    work.record("prompt_id", table)
    return Result(metadata={"prompts": table.height})


@stage("pictures", partitions="hand_pose", deps=["prompts"], code_version="1", group="small")
def pictures(work: Work, out: Staging) -> Result:
    from PIL import Image as PILImage

    count_call(work)
    table = work.parent("prompts").table("rows").select("prompt_id", "category", "prompt")
    out.write_table("rows", table.with_columns(pixels=pl.col("prompt") + "!"))
    sheet = PILImage.new("RGB", (32, 16), "red")
    return Result(metadata={"sheet": Image.of(sheet), "note": Markdown("**red**")})


@stage("dataset", deps=["pictures"], code_version="1", settings=["dataset"], group="small")
def dataset(work: Work, out: Staging) -> Result:
    count_call(work)
    found = work.parents("pictures")
    out.write_table("rows", pl.concat([one.table("rows") for one in found.values()]))
    return Result(metadata={"missing": ", ".join(work.missing("pictures"))})


@stage("model", deps=["dataset"], code_version="1", group="small")
def model(work: Work, out: Staging) -> Result:
    count_call(work)
    table = work.parent("dataset").table("rows")
    out.write_json("weights", sorted(table["category"].unique().to_list()))
    out.write_table("summary", pl.DataFrame({"train_rows": [table.height]}))
    return Result()


@stage(
    "evaluation",
    partitions="hand_pose",
    deps=["pictures", "model"],
    code_version="1",
    group="small",
)
def evaluation(work: Work, out: Staging) -> Result:
    count_call(work)
    trained_on = work.parent("model").json("weights")
    out.write_table("rows", pl.DataFrame({"seen": [work.category in trained_on]}))
    return Result()


@stage("report", deps=["evaluation", "dataset"], code_version="1", group="small")
def report(work: Work, out: Staging) -> Result:
    count_call(work)
    seen = work.parents("evaluation")
    out.write_table("summary", pl.DataFrame({"categories": [len(seen)]}))
    return Result()


STAGES = [report, evaluation, model, dataset, pictures, prompts, dictionary]
SUITES = {
    "dictionary": suite(rows=[row_count(1)]),
    "prompts": suite(
        rows=[
            row_count("${gates.min_prompts}"),
            unique("prompt"),
            not_null("prompt_id", "prompt"),
            share("failed_share", "status = 'failed'", "${gates.max_failed_share}"),
        ]
    ),
    "pictures": suite(rows=[row_count(), not_null("pixels")]),
    "dataset": suite(
        rows=[measure("categories", "count(distinct category)", "${dataset.min_categories}")]
    ),
    "model": suite(summary=[row_count(1, 1)]),
    "evaluation": suite(rows=[row_count(1, 1)]),
    "report": suite(summary=[row_count(1, 1)]),
}

GOOD = ["a red ball", "a blue ball", "a green box"]
POISON = ["a red ball", "a red ball", "a red ball"]  # three times the same: not unique


def write_taxonomy(folder: Path, categories: dict[str, list[str]]) -> None:
    """One file per category with its prompts."""
    (folder / "categories").mkdir(parents=True, exist_ok=True)
    for name, texts in categories.items():
        path = folder / "categories" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"prompts": texts}), encoding="utf-8")


def write_profile(folder: Path, **sections: object) -> Path:
    """A profile whose taxonomy is `<folder>/taxonomy`."""
    content = {
        "taxonomy": str(folder / "taxonomy"),
        "models": {
            name: {"source": f"/nowhere/{name}"}
            for name in ("base", "verifier", "clip", "image_reward")
        },
        "gates": {"min_prompts": 2},
        **sections,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def small_line(folder: Path) -> Line:
    """The line over `<folder>/small.yaml`, its outputs in `<folder>/home`."""
    return build_line(
        profile=str(folder / "small.yaml"), home=folder / "home", stages=STAGES, suites=SUITES
    )


def calls(folder: Path) -> list[str]:
    """What was computed so far, as "stage category"."""
    path = folder / "home" / "calls.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(build_line(stages=STAGES, suites=SUITES))
