"""Each suite's scorecard is made from its own images alone, whatever the other suite has."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.benchmark_scores import CANDIDATE_SCORES
from hoi_assets.evaluation.hoi_suite import score_hoi
from hoi_assets.evaluation.interacting_suite import score_interacting
from hoi_assets.evaluation.metric_agreement import METRIC_AGREEMENT
from hoi_assets.evaluation.run_metrics import score_images
from hoi_assets.evaluation.scorecards import COMPARISONS, SCORECARD, SCORES
from hoi_assets.evaluation.suite_scores import SuiteScores
from hoi_assets.evaluation.vlm_judge import JUDGE_RATINGS
from hoi_assets.settings import Evaluation, Judge, Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.evaluation.test_benchmark_scores import picture
from hoi_assets_tests.evaluation.vote_rows import rated, table

PROMPTS = ("p0", "p1")
QUESTIONS = {prompt: ["is the cup red?", "does the hand touch it?"] for prompt in PROMPTS}
PHRASES = {prompt: ["a cup", "a hand"] for prompt in PROMPTS}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def settings_with(**changes: Any) -> Settings:
    """The tiny profile without a reference set."""
    quick = Evaluation(bootstrap_samples=100, reference_pool=None)
    return load_settings().model_copy(update={"evaluation": quick, **changes})


def draw(store: Store, number: int) -> str:
    pixels = np.random.default_rng(number).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    return store.images.put(Image.fromarray(pixels))


def hoi_images(store: Store) -> pl.DataFrame:
    rows = [
        {
            "suite": suite,
            "method": method,
            "category": "hook" if suite == "hoi" else None,
            "seen": True if suite == "hoi" else None,
            "evaluation_prompt_id": f"{suite}-{prompt}",
            "image_id": f"{suite}-{prompt}-{method}",
            "pixels": draw(store, 10 * number + place),
            "prompt": "a photo of a hand with a red mug",
            "object": "mug",
            "colour": "red",
            "side": "left",
            "status": "accepted",
        }
        for number, (suite, prompt) in enumerate(
            (suite, prompt) for suite in ("hoi", "general") for prompt in PROMPTS
        )
        for place, method in enumerate(("base", "finetuned"))
    ]
    rows.append(rows[0] | {"image_id": "failed", "pixels": None, "status": "failed"})
    return pl.DataFrame(rows, infer_schema_length=None)


def interacting_images(store: Store) -> list[pl.DataFrame]:
    """Initial and refined images; the second prompt's initial image is also the refined one."""
    initial = [draw(store, 100 + place) for place, _ in enumerate(PROMPTS)]
    plain = [
        picture(prompt, "plain", 0, pixels=pixels)
        for prompt, pixels in zip(PROMPTS, initial, strict=True)
    ]
    refined = [
        picture("p0", "detailscribe", 0, pixels=initial[0], selected=False),
        picture("p0", "detailscribe", 1, pixels=draw(store, 110), selected=True, why="critic"),
        picture("p1", "detailscribe", 0, pixels=initial[1]),
    ]
    return [pl.DataFrame(rows, infer_schema_length=None) for rows in (plain, refined)]


def votes_on(images: pl.DataFrame, prompt_id: str, suite: str) -> list[dict[str, Any]]:
    return [
        rated(row[prompt_id], row["method"], 4, suite=suite, image_a=row["pixels"])
        for row in images.filter(status="accepted").iter_rows(named=True)
    ]


def check_declared(scores: SuiteScores) -> None:
    """Every table has exactly the declared columns, and nulls only where they are declared."""
    declared = (
        SCORES,
        SCORECARD,
        COMPARISONS,
        METRIC_AGREEMENT,
        CANDIDATE_SCORES,
        JUDGE_RATINGS,
    )
    tables = {one.name: one for one in declared}
    for name, found in scores.tables.items():
        assert dict(found.schema) == tables[name].schema
        for column in tables[name].columns:
            assert column.nullable or not found[column.name].null_count(), (name, column.name)
        if tables[name].key:
            assert not found.select(tables[name].key).is_duplicated().any()


def test_hoi_scorecard_needs_nothing_of_interacting(store: Store) -> None:
    images, other = hoi_images(store), interacting_images(store)[0]
    votes = table(
        votes_on(images.filter(suite="hoi"), "evaluation_prompt_id", "hoi")
        + votes_on(other, "row_id", "interacting")
    )
    found = score_hoi(store, settings_with(), [images], None, votes, lambda line: None)
    check_declared(found)
    assert set(found.tables) == {"scores", "scorecard", "comparisons", "metric_agreement"}
    assert set(found.scorecard["suite"]) == {"hoi", "general"}
    assert set(found.scores["image_id"]) == set(images["image_id"]) - {"failed"}
    human = found.scorecard.filter(metric="human_rating_q", slice_kind="all")
    assert human.select("suite", "method", "n", "missing").rows() == [
        ("hoi", "base", 2, 0),
        ("hoi", "finetuned", 2, 0),
    ]
    assert not found.scores["metric"].str.contains("verifier").any()
    assert set(found.scorecard["compute"]) == {"32 denoiser evaluations (NFE) an image"}
    assert set(found.metric_agreement["suite"]) == {"hoi"}


def test_interacting_scorecard_needs_nothing_of_hoi_and_no_verifier(store: Store) -> None:
    images = interacting_images(store)
    votes = table(
        votes_on(images[0], "row_id", "interacting")
        + votes_on(hoi_images(store), "evaluation_prompt_id", "hoi")
    )
    found = score_interacting(
        store, settings_with(), images, QUESTIONS, PHRASES, votes, lambda line: None
    )
    check_declared(found)
    assert set(found.tables) == {
        *("scores", "scorecard", "comparisons", "metric_agreement", "candidates")
    }
    assert set(found.scorecard["suite"]) == {"interacting"}
    methods = {"plain", "detailscribe", "detailscribe_mean", "detailscribe_oracle"}
    assert set(found.scores["method"]) == methods
    assert found.candidates is not None and found.costs is not None
    assert found.candidates.select("method", "candidate").n_unique() == 3
    human = found.scorecard.filter(metric="human_rating_q", slice_kind="all")
    assert human.select("method", "n", "missing").rows() == [("plain", 2, 0)]
    assert dict(found.costs.select("method", "seconds").rows()) == {
        "plain": None,
        "detailscribe": None,
    }


def test_judge_rates_selected_images_and_the_same_image_once(
    store: Store, chat_server: Any
) -> None:
    server = chat_server({"rating": 4, "shows": True})
    judge = Judge(endpoint=server.url, model="m", concurrency=1)
    found = score_interacting(
        store,
        settings_with(judge=judge),
        interacting_images(store),
        QUESTIONS,
        PHRASES,
        table([]),
        lambda line: None,
    )
    check_declared(found)
    assert found.ratings is not None and found.ratings.height == 4
    # Both methods selected p1's initial image.
    assert len(server.requests) == 3
    rows = found.scorecard.filter(metric="judge_rating", slice_kind="all")
    assert dict(rows.select("method", "mean").rows()) == {"plain": 4, "detailscribe": 4}


def test_suite_without_an_image_says_what_to_materialise(store: Store) -> None:
    settings, votes = settings_with(), table([])
    failed = hoi_images(store).filter(status="failed")
    for images in ([], [failed]):
        with pytest.raises(HoiError, match="materialise hoi_evaluation_images"):
            score_hoi(store, settings, images, None, votes, lambda line: None)
    drawn = interacting_images(store)
    for given, questions in (([], QUESTIONS), (drawn, {})):
        with pytest.raises(HoiError, match="materialise interaction_decompositions"):
            score_interacting(store, settings, given, questions, questions, votes, print)


def counts_of(table: pl.DataFrame) -> dict[str, tuple[int | None, bool | None]]:
    rows = table.select("metric", "prompt_tokens", "prompt_cut").unique().rows()
    return {metric: (tokens, cut) for metric, tokens, cut in rows}


def test_scores_say_what_their_models_read_of_the_text(store: Store) -> None:
    # The tiny judges read 48 tokens.
    long = "a photo of a hand with a red mug" + " on a box" * 15
    rows = hoi_images(store).filter(status="accepted", suite="hoi").head(1)
    short = score_images(store, settings_with(), rows, None, str)
    cut = score_images(store, settings_with(), rows.with_columns(prompt=pl.lit(long)), None, str)
    assert dict(cut.schema) == SCORES.schema
    assert counts_of(short)["clip_score"] == (14, False)
    assert counts_of(cut)["clip_score"] == (14 + 45, True)
    assert counts_of(short)["image_reward"] == (11, False)
    assert counts_of(cut)["image_reward"] == (11 + 45, True)
    # The examiner reads no text.
    assert counts_of(cut)["examiner_all"] == (None, None)


def test_benchmark_scores_say_so_by_the_longest_question(store: Store) -> None:
    # The tiny critic and component examiner read 32 tokens.
    long = "does the hand touch the cup" + " on the box" * 10 + "?"
    questions = QUESTIONS | {"p0": ["is the cup red?", long]}
    found = score_interacting(
        store, settings_with(), interacting_images(store), questions, PHRASES, table([]), str
    )
    check_declared(found)
    assert found.candidates is not None
    for scores in (found.candidates, found.scores):
        for metric in ("component_accuracy", "examiner_components"):
            asked = scores.filter(metric=metric)
            assert set(asked.filter(evaluation_prompt_id="p0")["prompt_cut"]) == {True}
            assert set(asked.filter(evaluation_prompt_id="p1")["prompt_cut"]) == {False}
            assert asked.filter(evaluation_prompt_id="p0")["prompt_tokens"].min() > 32
        assert set(scores.filter(metric="clip_score")["prompt_cut"]) == {False}


def test_images_of_an_older_edition_are_scored_beside_new_ones(store: Store) -> None:
    new = hoi_images(store).with_columns(prompt_cut=False, text_encoder_tokens=9)
    old = hoi_images(store).with_columns(image_id=pl.format("old-{}", "image_id"))
    found = score_hoi(store, settings_with(), [new, old], None, table([]), str)
    assert found.scores["image_id"].n_unique() == 2 * 8
