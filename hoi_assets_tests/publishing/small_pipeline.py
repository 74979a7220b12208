"""A small pipeline of real assets over a taxonomy of text files, for the tests of plumbing.

It is also a code location of its own, so that a daemon can load it:
`dagster dev -m hoi_assets_tests.publishing.small_pipeline` with HOI_PROFILE and HOI_HOME set.
"""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import yaml

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.automation import (
    follow_changed_parents,
    follow_in_one_run,
    follow_per_partition,
)
from hoi_assets.defs.project import Project, load_project
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    measure,
    not_null,
    row_count,
    share,
    suite,
    unique,
)
from hoi_assets.publishing.metadata import Image, Markdown
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Staging

JOBS = (
    dg.define_asset_job("words", selection=["dictionary"]),
    dg.define_asset_job("category", selection=["prompts", "pictures"]),
    dg.define_asset_job("dataset_and_model", selection=["dataset", "model"]),
    dg.define_asset_job("category_evaluation", selection=["evaluation"]),
    dg.define_asset_job("reporting", selection=["report"]),
)


def count_call(context: StageContext) -> None:
    """Leave a trace that the function ran."""
    with (context.store.home / "calls.txt").open("a", encoding="utf-8") as file:
        file.write(f"{context.asset} {context.partition or '_'}\n")


def read_category(context: StageContext) -> list[str]:
    path = context.settings.taxonomy_folder / "categories" / f"{context.partition_key}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["prompts"]


def small_assets(categories: Sequence[str]) -> list[dg.AssetsDefinition]:
    """dictionary -> prompts, pictures (per category) -> dataset, model -> evaluation -> report."""
    hand_pose = dg.StaticPartitionsDefinition(list(categories))

    @published_asset(code_version="1", group_name="small", suite=suite(rows=[row_count(1)]))
    def dictionary(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        staging.write_table("rows", pl.DataFrame({"word": ["a", "red", "ball"]}))
        return Result(metadata={"words": 3})

    @published_asset(
        partitions_def=hand_pose,
        deps=["dictionary"],
        group_name="small",
        code_version="1",
        settings=["prompter"],
        external_inputs=lambda context: {"category": read_category(context)},
        suite=suite(
            rows=[
                row_count("${gates.min_prompts}"),
                unique("prompt"),
                not_null("prompt_id", "prompt"),
                share("failed_share", "status = 'failed'", "${gates.max_failed_share}"),
            ]
        ),
    )
    def prompts(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        texts = read_category(context)
        status = ["failed" if text == "unlucky" else "accepted" for text in texts]
        table = pl.DataFrame(
            {
                "prompt_id": [f"{context.partition_key}-{n}" for n in range(len(texts))],
                "category": context.partition_key,
                "prompt": texts,
                "status": status,
                "reason": [None if s == "accepted" else "no reply" for s in status],
            },
            schema_overrides={"reason": pl.String},
        )
        staging.write_table("rows", table)
        context.record("prompt_id", table)
        return Result(metadata={"prompts": table.height})

    @published_asset(
        partitions_def=hand_pose,
        deps=["prompts"],
        group_name="small",
        code_version="1",
        suite=suite(rows=[row_count(), not_null("pixels")]),
    )
    def pictures(context: StageContext, staging: Staging) -> Result:
        from PIL import Image as PILImage

        count_call(context)
        table = context.parent("prompts").table("rows").select("prompt_id", "category", "prompt")
        staging.write_table("rows", table.with_columns(pixels=pl.col("prompt") + "!"))
        sheet = PILImage.new("RGB", (32, 16), "red")
        return Result(metadata={"sheet": Image.of(sheet), "note": Markdown("**red**")})

    @published_asset(
        deps=["pictures"],
        group_name="small",
        automation_condition=follow_changed_parents,
        code_version="1",
        settings=["dataset"],
        suite=suite(
            rows=[measure("categories", "count(distinct category)", "${dataset.min_categories}")]
        ),
    )
    def dataset(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        found = context.partitions("pictures")
        staging.write_table("rows", pl.concat([one.table("rows") for one in found.values()]))
        return Result(metadata={"missing": ", ".join(context.missing("pictures"))})

    @published_asset(
        deps=["dataset"],
        group_name="small",
        automation_condition=follow_in_one_run,
        code_version="1",
        suite=suite(summary=[row_count(1, 1)]),
    )
    def model(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        table = context.parent("dataset").table("rows")
        staging.write_json("weights", sorted(table["category"].unique().to_list()))
        staging.write_table("summary", pl.DataFrame({"train_rows": [table.height]}))
        return Result()

    @published_asset(
        partitions_def=hand_pose,
        deps=["pictures", "model"],
        group_name="small",
        automation_condition=follow_per_partition,
        code_version="1",
        suite=suite(rows=[row_count(1, 1)]),
    )
    def evaluation(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        trained_on = context.parent("model").json("weights")
        staging.write_table("rows", pl.DataFrame({"seen": [context.partition_key in trained_on]}))
        return Result()

    @published_asset(
        deps=["evaluation", "dataset"],
        group_name="small",
        automation_condition=follow_changed_parents,
        code_version="1",
        suite=suite(summary=[row_count(1, 1)]),
    )
    def report(context: StageContext, staging: Staging) -> Result:
        count_call(context)
        seen = context.partitions("evaluation")
        staging.write_table("summary", pl.DataFrame({"categories": [len(seen)]}))
        return Result()

    return [report, evaluation, model, dataset, pictures, prompts, dictionary]


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


def categories_of(taxonomy: Path) -> list[str]:
    """Names of the category files."""
    return sorted(path.stem for path in (taxonomy / "categories").glob("*.yaml"))


def small_project(folder: Path) -> Project:
    """The pipeline over `<folder>/small.yaml`, its outputs in `<folder>/home`."""
    return load_project(
        profile=str(folder / "small.yaml"),
        home=folder / "home",
        assets=small_assets(categories_of(folder / "taxonomy")),
        pipeline_jobs=JOBS,
    )


def calls(folder: Path) -> list[str]:
    """What was computed so far, as "asset category"."""
    path = folder / "home" / "calls.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


@dg.definitions
def defs() -> dg.Definitions:
    assets = small_assets(categories_of(load_settings().taxonomy_folder))
    return all_definitions(load_project(assets=assets, pipeline_jobs=JOBS))
