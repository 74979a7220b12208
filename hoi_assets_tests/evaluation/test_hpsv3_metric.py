"""HPSv3 beside the other metrics, where a profile names it."""

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from hoi_assets.cli.main import main
from hoi_assets.defs.project import published_below
from hoi_assets.engines.hpsv3.loading import load_hpsv3
from hoi_assets.engines.hpsv3.scoring import hpsv3_scores
from hoi_assets.evaluation.hoi_suite import score_hoi
from hoi_assets.evaluation.interacting_suite import score_interacting
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.expectations import resolve
from hoi_assets.publishing.graph import gate_digest, own_inputs
from hoi_assets.publishing.validation import evaluate
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_hpsv3 import make_hpsv3
from hoi_assets_tests.evaluation.test_folder_scores import (
    PROMPTS,
    copy_pictures,
    plain,
    score,
    write_profile,
)
from hoi_assets_tests.evaluation.test_suites import (
    PHRASES,
    QUESTIONS,
    hoi_images,
    interacting_images,
    settings_with,
    votes_on,
)
from hoi_assets_tests.evaluation.vote_rows import table

STAGES = [stage_of(one) for one in published_below("hoi_assets.defs")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hpsv3(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def settings(folder: Path) -> Settings:
    own = settings_with(threads=1)
    others = dict.fromkeys(("examiner", "critic", "component_examiner"))
    named = own.models.model_copy(update={**others, "hpsv3": ModelRef(source=str(folder))})
    return own.model_copy(update={"models": named})


def quiet(_: str) -> None:
    pass


@pytest.mark.slow
def test_it_is_in_the_scorecards_of_both_pipelines(store: Store, settings: Settings) -> None:
    images = hoi_images(store)
    votes = table(votes_on(images, "evaluation_prompt_id", "hoi"))
    found = score_hoi(store, settings, [images], None, votes, quiet)
    own = found.scores.filter(metric="hpsv3")
    assert own.height == 8 and own["value"].null_count() == 0
    overall = found.scorecard.filter(metric="hpsv3", suite="hoi", slice_kind="all")
    assert set(overall["method"]) == {"base", "finetuned"}
    agreement = found.metric_agreement.filter(metric="hpsv3", suite="hoi")
    assert agreement.height  # how well it agrees with the raters is said beside it
    drawn = interacting_images(store)
    other = score_interacting(store, settings, drawn, QUESTIONS, PHRASES, table([]), quiet)
    assert other.scores.filter(metric="hpsv3")["value"].is_not_null().all()


@pytest.mark.slow
def test_hoi_score_writes_what_the_model_says_and_asks_it_once(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    profile = write_profile(tmp_path, {"hpsv3": {"source": str(folder)}})
    images, prompts = plain(tmp_path)
    scores = score(images, prompts, tmp_path / "scores.parquet", "--profile", profile)
    own = scores.filter(pl.col("metric") == "hpsv3").sort("prompt")
    names = sorted(PROMPTS, key=PROMPTS.__getitem__)
    pictures = [Image.open(copy_pictures(images) / f"{name}.webp") for name in names]
    wanted = hpsv3_scores(load_hpsv3(folder), pictures, [PROMPTS[name] for name in names])
    assert own["value"].to_list() == wanted[:, 0].tolist()
    capsys.readouterr()
    score(images, prompts, tmp_path / "again.parquet", "--profile", profile)
    assert "hpsv3: 1/" not in capsys.readouterr().err


def test_models_check_says_its_size(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = write_profile(tmp_path, {"hpsv3": {"source": str(folder), "dtype": "bfloat16"}})
    assert main(["models", "check", "hpsv3", "--profile", profile]) == 0
    said = capsys.readouterr().out
    assert "hpsv3" in said and "kB" in said


def test_where_it_is_not_named_no_version_changes(settings: Settings) -> None:
    without = settings.models.model_copy(update={"hpsv3": None})
    tiny = settings.model_copy(update={"models": without})
    changed = {
        stage.name
        for stage in STAGES
        if own_inputs(stage, settings) != own_inputs(stage, tiny)
        or gate_digest(stage, settings) != gate_digest(stage, tiny)
    }
    assert changed == {"hoi_scorecards", "interacting_scorecards"}
    for stage in STAGES:
        assert "hpsv3" not in str([one.as_json() for one in resolve(stage.suite, tiny)])


@pytest.mark.parametrize("asset", ["hoi_scorecards", "interacting_scorecards"])
def test_its_range_is_its_own(asset: str, settings: Settings) -> None:
    """Unlike most metrics it is no share."""
    (stage,) = (one for one in STAGES if one.name == asset)
    (declared,) = (
        one for one in resolve(stage.suite, settings) if "out_of_range" in str(one.kwargs)
    )

    def passes(value: float, metric: str = "hpsv3") -> bool:
        rows = pl.DataFrame({"metric": [metric], "value": [value]})
        return evaluate({"scores": rows}, (declared,)).passed

    assert passes(11.5) and passes(-6.0) and not passes(1e9) and not passes(2.0, "blip_vqa")
