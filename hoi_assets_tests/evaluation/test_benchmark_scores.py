"""What the benchmark suite reports of its candidates."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from hoi_assets.detailscribe.image_rows import (
    CRAFT,
    ENDPOINT,
    IMAGE_EDIT,
    LOCAL_REPAIR,
    MULTI_SEED,
    MULTI_SEED_CLIP,
    PLAIN,
    REFINE,
    REWRITE,
)
from hoi_assets.evaluation.benchmark_scores import (
    CANDIDATE,
    ORACLE_RULE,
    PAIRS,
    describe_methods,
    list_candidates,
    score_candidates,
    select_reported,
)
from hoi_assets.evaluation.scorecards import METHODS, compare_methods, make_scorecard
from hoi_assets.settings import Critic, Evaluation, load_settings
from hoi_assets.store.versions import Store

CONFIG = Evaluation(bootstrap_samples=200)


def picture(row_id: str, method: str, candidate: int, **more: Any) -> dict[str, Any]:
    return {
        "row_id": row_id,
        "scenario": "functional",
        "prompt": f"prompt {row_id}",
        "method": method,
        "candidate": candidate,
        "image_id": f"{method}{row_id}{candidate}",
        "pixels": f"{row_id}{method}{candidate}",
        "denoiser_evaluations": 10,
        "selected": candidate == 0,
        "why": "critic" if candidate == 0 else None,
        "satisfied": None,
        "switch_step": None,
        "status": "accepted",
        **more,
    }


def scored(values: dict[tuple[str, str, int], float], chosen: set[tuple[str, str, int]]) -> Any:
    rows = [
        dict.fromkeys(CANDIDATE)
        | {
            "suite": "interacting",
            "method": method,
            "scenario": "functional",
            "evaluation_prompt_id": row_id,
            "image_id": f"{method}{row_id}{number}",
            "pixels": f"{method}{row_id}{number}",
            "candidate": number,
            "selected": (row_id, method, number) in chosen,
            "denoiser_evaluations": 10,
            "metric": "clip_score",
            "value": value,
        }
        for (row_id, method, number), value in values.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


VALUES = {
    ("a", "plain", 0): 1.0,
    ("a", "detailscribe", 0): 1.0,
    ("a", "detailscribe", 1): 2.0,
    ("a", "detailscribe", 2): 4.0,
    ("b", "plain", 0): 3.0,
    ("b", "detailscribe", 0): 3.0,
    ("a", "multi_seed", 0): 1.0,
    ("a", "multi_seed", 1): 5.0,
    ("b", "multi_seed", 0): 3.0,
    ("b", "multi_seed", 1): 2.0,
}
CHOSEN = {
    ("a", "plain", 0),
    ("b", "plain", 0),
    ("a", "detailscribe", 1),
    ("b", "detailscribe", 0),
    ("a", "multi_seed", 0),
    ("b", "multi_seed", 0),
}


def means(table: pl.DataFrame) -> dict[str, float]:
    card = make_scorecard(table, CONFIG)
    return dict(card.filter(pl.col("slice_kind") == "all").select("method", "mean").rows())


def test_selected_mean_and_oracle_are_three_figures_of_the_same_pictures() -> None:
    found = means(select_reported(scored(VALUES, CHOSEN)))
    assert found["plain"] == pytest.approx(2.0)
    assert found["detailscribe"] == pytest.approx((2 + 3) / 2)
    # The variants alone where there are any; the initial picture where nothing was to correct.
    assert found["detailscribe_mean"] == pytest.approx(((2 + 4) / 2 + 3) / 2)
    assert found["detailscribe_oracle"] == pytest.approx((4 + 3) / 2)
    assert found["multi_seed"] == pytest.approx(2.0)
    assert found["multi_seed_oracle"] == pytest.approx((5 + 3) / 2)
    assert found["detailscribe_oracle"] >= found["detailscribe"]


def test_published_best_of_variants_does_not_count_the_initial_picture() -> None:
    # The initial picture of prompt a is its best: an oracle takes it, the published table cannot.
    values = VALUES | {("a", "detailscribe", 0): 9.0}
    table = select_reported(scored(values, CHOSEN), best_of_variants=True)
    found = means(table)
    assert found["detailscribe_oracle"] == pytest.approx((9 + 3) / 2)
    # Prompt b has no variants: there the initial picture is all there is.
    assert found["detailscribe_published"] == pytest.approx((4 + 3) / 2)
    assert "detailscribe_published" not in means(select_reported(scored(values, CHOSEN)))
    compared = compare_methods(table, CONFIG, PAIRS).filter(method_a="detailscribe_published")
    assert set(compared["method_b"]) == {"plain"}


def test_a_judge_that_rates_every_candidate_has_its_best_of_variants() -> None:
    rated = scored(VALUES, CHOSEN).with_columns(metric=pl.lit("judge_rating"))
    table = select_reported(rated, best_of_variants=True, every_candidate_rated=True)
    assert means(table)["detailscribe_published"] == pytest.approx((4 + 3) / 2)


def test_what_the_judge_was_asked_of_selected_pictures_has_no_mean_and_no_oracle() -> None:
    rated = scored({place: 5.0 for place in CHOSEN}, CHOSEN).with_columns(
        metric=pl.lit("judge_rating")
    )
    table = select_reported(pl.concat([scored(VALUES, CHOSEN), rated]))
    told = table.filter(metric="judge_rating")
    assert set(told["method"]) == {"plain", "detailscribe", "multi_seed"}
    assert "detailscribe_oracle" in set(table["method"])


def test_an_endpoint_critics_own_answers_are_the_component_accuracy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain, variant, painted = (
        store.images.put(Image.new("RGB", (128, 128), colour)) for colour in ("red", "blue", "tan")
    )
    images = pl.DataFrame(
        [
            picture("a", "plain", 0, satisfied=None, pixels=plain),
            picture("a", "detailscribe", 0, satisfied=1, pixels=plain),
            picture("a", "detailscribe", 1, satisfied=2, pixels=variant),
            picture("a", "endpoint", 0, satisfied=None, pixels=painted),
        ],
        infer_schema_length=None,
    )
    rows = list_candidates([images], {"a": ["is it?", "does it?"]}, {"a": []})
    tiny = load_settings()
    asked = Critic(endpoint="http://127.0.0.1:9/v1", model="m")
    found = score_candidates(store, tiny.model_copy(update={"critic": asked}), rows, str)
    told = found.filter(metric="component_accuracy")
    assert told.select("method", "candidate", "value").rows() == [
        ("plain", 0, 0.5),
        ("detailscribe", 0, 0.5),
        ("detailscribe", 1, 1.0),
    ]


def test_a_score_that_could_not_be_had_is_no_oracle() -> None:
    values = VALUES | {("a", "detailscribe", 2): None}
    found = means(select_reported(scored(values, CHOSEN)))  # type: ignore[arg-type]
    assert found["detailscribe_oracle"] == pytest.approx((2 + 3) / 2)


def test_scenarios_are_slices_and_pairs_are_compared_on_common_prompts() -> None:
    table = select_reported(scored(VALUES, CHOSEN))
    card = make_scorecard(table, CONFIG)
    assert set(card["slice_kind"]) == {"all", "scenario"}
    compared = compare_methods(table, CONFIG, PAIRS).filter(pl.col("slice_kind") == "all")
    row = compared.filter((pl.col("method_a") == "detailscribe") & (pl.col("method_b") == "plain"))
    assert row["n"].to_list() == [2]
    assert row["difference"][0] == pytest.approx(0.5)
    assert set(compared["method_a"]) <= set(METHODS)
    assert "craft" not in set(compared["method_b"])  # nobody drew it


def test_every_method_of_the_line_is_compared_with_detailscribe() -> None:
    drawn = {PLAIN, CRAFT, MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE, ENDPOINT}
    drawn |= {LOCAL_REPAIR, IMAGE_EDIT}
    assert {b for a, b in PAIRS if a == "detailscribe"} == drawn


def test_pictures_not_drawn_and_rows_without_components_are_left_out() -> None:
    images = pl.DataFrame(
        [
            picture("a", "plain", 0),
            picture("a", "craft", 1, status="failed"),
            picture("b", "plain", 0),
        ],
        infer_schema_length=None,
    )
    rows = list_candidates([images], {"a": ["is it?"]}, {"a": ["a cup", "a box"]})
    assert [(row["evaluation_prompt_id"], row["method"]) for row in rows] == [("a", "plain")]
    assert rows[0]["questions"] == ["is it?"]
    assert rows[0]["suite"] == "interacting"


def test_compute_is_the_mean_of_all_denoiser_evaluations_a_prompt_took() -> None:
    images = [picture("a", "craft", n) for n in range(3)] + [picture("b", "craft", 0)]
    images += [picture(row, "detailscribe", 0) for row in "ab"]
    rows = list_candidates(
        [pl.DataFrame(images, infer_schema_length=None)],
        {"a": ["?"], "b": ["?"]},
        {"a": [], "b": []},
    )
    rules, compute = describe_methods(rows)
    assert compute["craft"] == "20 denoiser evaluations (NFE) a prompt"
    assert rules["craft"] == "critic"
    assert rules["detailscribe_oracle"] == ORACLE_RULE
    assert compute["detailscribe_oracle"] == compute["detailscribe"]
