"""What a second run costs when nothing, or one base prompt, has changed."""

import shutil
import tempfile
from pathlib import Path

import polars as pl
import yaml

from benchmarks.common import hoi, images, report, tiny
from hoi_assets.settings import PROFILES, ROOT
from hoi_assets.store.versions import Store


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        first, _ = hoi(home, "run")
        drawn = images(home)
        second, _ = hoi(home, "run")
        report(
            "incremental/unchanged",
            f"{images(home) - drawn} images, {second / first:.1%} of the first run's time "
            f"({second:.1f} of {first:.1f} s)",
            "0 images, at most 10%",
        )
        category = tiny().run_categories[0]
        before = _candidates(home, category)
        text, profile = _edit_one_prompt(Path(folder), category)
        hoi(home, "run", profile=profile)
        after = _candidates(home, category)
        new = after.filter(~pl.col("image_id").is_in(before["image_id"].to_list()))
        prompts = Store(home).require("detailed_prompts", category).table("rows")
        own = prompts.filter(pl.col("base_prompt") == text)["prompt_id"].to_list()
        report(
            "incremental/one edited base prompt",
            f"{new.height} of {after.height} candidates drawn anew, "
            f"{new.filter(~pl.col('prompt_id').is_in(own)).height} of them of other prompts",
            "0 of other prompts",
        )


def _candidates(home: Path, category: str) -> pl.DataFrame:
    return Store(home).require("candidate_images", category).table("rows")


def _edit_one_prompt(folder: Path, category: str) -> tuple[str, Path]:
    taxonomy = folder / "taxonomy"
    shutil.copytree(ROOT / "data" / "taxonomy", taxonomy)
    path = taxonomy / "categories" / f"{category}.yaml"
    text = path.read_text(encoding="utf-8")
    old = yaml.safe_load(text)["base_prompts"][0]["text"]
    new = f"{old} today"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    profile["taxonomy"] = str(taxonomy)
    edited = folder / "edited.yaml"
    edited.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return new, edited


if __name__ == "__main__":
    main()
