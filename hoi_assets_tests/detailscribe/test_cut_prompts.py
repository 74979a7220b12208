"""Rows of the benchmark's images and critiques say what was read of their texts."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.detailscribe.baseline_images import draw_baseline_images
from hoi_assets.detailscribe.components import build_component
from hoi_assets.detailscribe.critique import critiques_frame, findings_frame
from hoi_assets.detailscribe.image_rows import IMAGE_ROWS
from hoi_assets.detailscribe.initial_images import critique_initial_images, draw_initial_images
from hoi_assets.detailscribe.refined_images import draw_refined_images
from hoi_assets.detailscribe.vqa_critic import count_critic_tokens
from hoi_assets.settings import Critic, ModelRef, Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_judges import make_clip, make_vilt
from hoi_assets_tests.engines.small_sd3 import make_sd3

pytestmark = pytest.mark.slow

# The small pipeline reads 32 letters, two of them special; the small critic 12 words, two special.
PROMPTS = {
    "short": "a hand holds a blue box",
    "long": "a hand holds a box on a wall with a blue ball",
}
COMPONENTS = {
    "short": (build_component("a hand", "holds", "a blue box", "a hand holds a box?"),),
    "long": (
        build_component("a hand", "holds", "a box", "a hand holds a box?"),
        build_component(
            "a box", "with", "a ball", "a photo depicts a box on a wall with a ball on a box?"
        ),
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelRef]:
    folder = tmp_path_factory.mktemp("models")
    make_sd3(folder / "plain")
    make_sd3(folder / "with_t5", with_t5=True)
    make_vilt(folder / "critic", ("yes", "no"))
    make_clip(folder / "clip")
    return {path.name: ModelRef(source=str(path)) for path in folder.iterdir()}


def settings_of(models: dict[str, ModelRef], benchmark: str) -> Settings:
    tiny = load_settings("tiny")
    return tiny.model_copy(
        update={
            "models": tiny.models.model_copy(
                update={
                    "benchmark": models[benchmark],
                    "critic": models["critic"],
                    "clip": models["clip"],
                }
            ),
            # Everything is to be corrected.
            "critic": tiny.critic.model_copy(update={"threshold": 1.0}),
            "redenoising": tiny.redenoising.model_copy(
                update={
                    **{"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 2},
                    **{"switch_steps": (0, 1), "craft_rounds": 1},
                }
            ),
        }
    )


def drawn(
    folder: Path, settings: Settings, log: Any = str
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Tables of images by asset, and of findings."""
    store = Store(folder)
    rows = [
        {"row_id": row_id, "scenario": "functional", "prompt": prompt}
        for row_id, prompt in PROMPTS.items()
    ]
    initial = draw_initial_images(store, settings, pl.DataFrame(rows), log)
    critiques = critique_initial_images(store, settings, initial, COMPONENTS, log)
    table = critiques_frame(critiques)
    findings = findings_frame(critiques, count_critic_tokens(store, settings, critiques))
    # As published before there were these columns.
    older = initial.drop("cut_by", "prompt_cut", "text_encoder_tokens", "text_encoder_2_tokens")
    images = {
        "initial_images": initial,
        "refined_images": draw_refined_images(store, settings, older, COMPONENTS, table, log)[
            "rows"
        ],
        "baseline_images": draw_baseline_images(store, settings, older, COMPONENTS, table, log),
    }
    return images, findings


def test_every_image_says_what_was_read_of_its_prompt(
    tmp_path: Path, models: dict[str, ModelRef]
) -> None:
    log: list[str] = []
    images, findings = drawn(tmp_path, settings_of(models, "plain"), log.append)
    for name, table in images.items():
        assert dict(table.schema) == IMAGE_ROWS.schema
        for row in table.iter_rows(named=True):
            text = row["corrected_prompt"] or row["drawn_prompt"]
            letters = len(text.replace(" ", "").replace(",", "")) + text.count(",") + 2
            assert row["text_encoder_tokens"] == row["text_encoder_2_tokens"] == letters, name
            assert row["text_encoder_3_tokens"] is None
            assert row["prompt_cut"] == (letters > 32)
            assert row["cut_by"] == ("text_encoder, text_encoder_2" if letters > 32 else None)
    cut = images["initial_images"].filter("prompt_cut")["row_id"].to_list()
    assert cut == ["long"]
    # The short prompt is read whole; with its correction it is not.
    refined = images["refined_images"].filter(row_id="short", method="detailscribe")
    assert refined["prompt_cut"].to_list() == [False, True, True]
    assert any(
        "1 of 2 texts are longer than the 32 tokens that text_encoder reads" in line for line in log
    )

    asked = {row["question"]: row for row in findings.iter_rows(named=True)}
    short, long = COMPONENTS["long"]
    assert (asked[short.question]["question_tokens"], asked[short.question]["question_cut"]) == (
        *(8, False),
    )
    assert (asked[long.question]["question_tokens"], asked[long.question]["question_cut"]) == (
        *(17, True),
    )


def test_prompt_that_t5_reads_whole_is_not_cut(tmp_path: Path, models: dict[str, ModelRef]) -> None:
    rows = {"row_id": "long", "scenario": "functional", "prompt": PROMPTS["long"]}
    settings = settings_of(models, "with_t5")
    table = draw_initial_images(Store(tmp_path), settings, pl.DataFrame([rows]), str)
    (row,) = table.to_dicts()
    assert row["cut_by"] == "text_encoder, text_encoder_2"
    assert row["text_encoder_3_tokens"] > 32 and row["prompt_cut"] is False


def test_findings_of_an_endpoint_have_no_count(models: dict[str, ModelRef], tmp_path: Path) -> None:
    settings = settings_of(models, "plain")
    critic = Critic(endpoint="http://127.0.0.1:9/v1", model="m")
    of_endpoint = settings.model_copy(update={"critic": critic})
    assert count_critic_tokens(Store(tmp_path), of_endpoint, []) == {}
