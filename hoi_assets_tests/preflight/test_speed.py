"""Speed is measured with the real models, kept in the home, and holds for its settings alone."""

from pathlib import Path

import pytest

from hoi_assets.preflight.costs import make_plan
from hoi_assets.preflight.speed import measure_speeds, read_speeds
from hoi_assets.settings import ModelRef, load_settings
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import make_sdxl

pytestmark = pytest.mark.slow


def test_measured_steps_give_the_plan_its_hours(tmp_path: Path) -> None:
    make_sdxl(tmp_path / "sdxl")
    make_sd3(tmp_path / "sd3")
    tiny = load_settings("tiny")
    models = {"base": ModelRef(source=str(tmp_path / "sdxl"))}
    models["benchmark"] = ModelRef(source=str(tmp_path / "sd3"))
    small = {"width": 64, "height": 64, "batch_size": 2}
    settings = tiny.model_copy(
        update={
            "models": tiny.models.model_copy(update=models),
            "sampling": tiny.sampling.model_copy(update=small),
            "redenoising": tiny.redenoising.model_copy(update=small),
            "threads": 1,
        }
    )
    taxonomy, home = load_taxonomy(settings.taxonomy_folder), tmp_path / "home"

    def hours(under=settings):
        made = make_plan(under, taxonomy, home, ("index_press",), ("functional",))
        return {one.asset: one.hours for one in (*made.assets, made.total)}

    assert hours()["total"] is None
    lines: list[str] = []
    speeds = measure_speeds(settings, home, lines.append)
    assert read_speeds(settings, home) == speeds and len(lines) == 4
    assert speeds.drawing.keys() == {"base", "benchmark"}
    assert speeds.training.keys() == {"lora", "finetuning"}
    assert all(one.per_evaluation > 0 for one in speeds.drawing.values())
    known = hours()
    total = known.pop("total")
    assert total and total == pytest.approx(sum(one or 0 for one in known.values()))
    other = settings.sampling.model_copy(update={"batch_size": 3})
    assert hours(settings.model_copy(update={"sampling": other}))["candidate_images"] is None
