"""Candidates with and without a goal, on small random models."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.vilt import pair_scores
from hoi_assets.engines.vilt.verifier import Thresholds, load_verifier, save_verifier
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.ppv.candidates import CANDIDATE_ROWS, propose_candidates
from hoi_assets.ppv.evaluation_images import EVALUATION_IMAGE_ROWS, draw_evaluation_images
from hoi_assets.ppv.verdicts import (
    VERDICT_ROWS,
    VERDICT_SUMMARY,
    summarise_verdicts,
    verify_candidates,
)
from hoi_assets.settings import Settings, load_settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Category, load_taxonomy
from hoi_assets_tests.engines.small_judges import make_vilt
from hoi_assets_tests.engines.small_sdxl import make_sdxl, random_lora

PROMPTS = [f"a hand holds a cup {number}" for number in range(3)]


class World:
    """A store with a published LoRA and verifier, and the settings to draw with them."""

    def __init__(self, folder: Path, base: Path, verifier: Path) -> None:
        tiny = load_settings("tiny")
        self.settings = tiny.model_copy(
            update={
                "models": tiny.models.model_copy(
                    update={"base": tiny.models.base.model_copy(update={"source": str(base)})}
                ),
                "sampling": tiny.sampling.model_copy(
                    update={"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 2}
                ),
            }
        )
        self.category: Category = load_taxonomy(tiny.taxonomy_folder).category("hook")
        self.store = Store(folder / "home")
        lora = random_lora(load_sdxl(self.settings.models.base), folder / "lora", 1)
        self.lora = self._publish("category_loras", "lora", folder / "lora", lora.digest)
        self.verifier = self._publish("verifier", "model", verifier, "")
        self.logged: list[str] = []

    def _publish(self, asset: str, name: str, folder: Path, digest: str) -> Published:
        partition = self.category.key if asset == "category_loras" else None
        with self.store.stage(asset, partition) as out:
            out.add_folder(name, folder)
            out.write_table("summary", pl.DataFrame({"lora_digest": [digest]}))
            return self.store.publish(out, {}, None)

    def with_candidates(self, **options: Any) -> Settings:
        candidates = self.settings.candidates.model_copy(update=options)
        return self.settings.model_copy(update={"candidates": candidates})

    def propose(
        self,
        settings: Settings,
        verifier: Published | None,
        texts: Sequence[str] = PROMPTS,
        avoid: Sequence[str] = ("", "", ""),
    ) -> pl.DataFrame:
        prompts = pl.DataFrame(
            {
                "prompt_id": ["a", "b", "c"],
                "index": [0, 1, 2],
                "prompt": texts,
                "negative_prompt": avoid,
                "status": ["accepted"] * 3,
            }
        )
        return propose_candidates(
            self.store,
            settings,
            self.category,
            prompts,
            self.lora,
            verifier,
            self.logged.append,
        )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    make_sdxl(folder / "sdxl")
    # Random weights accept by chance; these thresholds accept everything.
    verifier = load_verifier(make_vilt(folder / "vilt"))
    save_verifier(replace(verifier, thresholds=Thresholds(0.0, 0.0)), folder / "verifier")
    return folder / "sdxl", folder / "verifier"


@pytest.fixture
def world(tmp_path: Path, models: tuple[Path, Path]) -> World:
    return World(tmp_path, *models)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often the verifier's model scores each (image, prompt) pair."""
    counted: Counter[tuple[str, str]] = Counter()
    score_pairs = pair_scores.score_pairs

    def counting(verifier: Any, images: Any, prompts: Any, *more: Any) -> Any:
        pixels = [digest_pixels(image) for image in images]
        counted.update(zip(pixels, prompts, strict=True))
        return score_pairs(verifier, images, prompts, *more)

    monkeypatch.setattr(pair_scores, "score_pairs", counting)
    return counted


def test_candidates_without_a_goal_need_no_verifier(
    world: World, scored: Counter[tuple[str, str]]
) -> None:
    settings = world.with_candidates(per_prompt=2, accepted_goal=None)
    table = world.propose(settings, None)
    assert table.schema == pl.Schema(CANDIDATE_ROWS.schema)
    assert table["round"].to_list() == [0] * 3 + [1] * 3
    assert table["prompt"].to_list() == PROMPTS * 2
    assert table["image_id"].n_unique() == 6 and not scored
    assert world.propose(settings, world.verifier).equals(table)


def test_what_the_prompter_wants_avoided_is_the_images_negative_prompt(world: World) -> None:
    settings = world.with_candidates(per_prompt=1, accepted_goal=None)
    plain = world.propose(settings, None)
    told = world.propose(settings, None, avoid=("blur", "", "a sixth finger"))
    assert told["negative_prompt"].to_list() == ["blur", "", "a sixth finger"]
    same = (told["pixels"] == plain["pixels"]).to_list()
    assert same == [False, True, False]
    sampling = settings.sampling.model_copy(update={"negative_prompt": "text"})
    both = settings.model_copy(update={"sampling": sampling})
    told = world.propose(both, None, avoid=("blur", "", ""))
    assert told["negative_prompt"].to_list() == ["text, blur", "text", "text"]


def test_goal_without_a_verifier_is_an_error_before_anything_is_drawn(world: World) -> None:
    with pytest.raises(HoiError, match=r"accepted_goal is 4[\s\S]*materialise `verifier`"):
        world.propose(world.with_candidates(accepted_goal=4), None)
    assert not world.logged


def test_pairs_scored_while_proposing_are_not_scored_again_by_verified_pairs(
    world: World, scored: Counter[tuple[str, str]]
) -> None:
    settings = world.with_candidates(accepted_goal=1000, budget=8)
    candidates = world.propose(settings, world.verifier)
    assert candidates.height == 8 and candidates["round"].max() == 2
    pairs = set(zip(candidates["pixels"], candidates["prompt"], strict=True))
    assert set(scored) == pairs and set(scored.values()) == {1}
    verdicts = verify_candidates(
        world.store, settings, candidates, world.verifier, world.logged.append
    )
    assert set(scored.values()) == {1}
    assert verdicts.schema == pl.Schema(VERDICT_ROWS.schema)
    assert verdicts["p_pair"].null_count() == 0
    summary = summarise_verdicts(verdicts, world.category.key, 1000)
    assert summary.schema == pl.Schema(VERDICT_SUMMARY.schema)
    assert summary["accepted"].item() == 8 and summary["shortfall"].item() == 992


def test_rounds_end_once_the_goal_is_reached(world: World) -> None:
    table = world.propose(world.with_candidates(accepted_goal=4, budget=9), world.verifier)
    assert table["round"].to_list() == [0] * 3 + [1] * 3
    assert "round 2: 6 of 4 accepted, 6 drawn" in world.logged


def test_candidate_that_was_never_drawn_is_a_failed_verdict_with_its_reason(world: World) -> None:
    candidates = world.propose(world.with_candidates(per_prompt=1), None)
    lost = candidates.with_columns(
        pixels=pl.when(pl.col("prompt_id") == "b").then(None).otherwise("pixels"),
        reason=pl.when(pl.col("prompt_id") == "b").then(pl.lit("out of memory")),
    )
    verdicts = verify_candidates(world.store, world.settings, lost, world.verifier, print)
    row = verdicts.filter(pl.col("prompt_id") == "b").row(0, named=True)
    assert (row["status"], row["reason"]) == ("failed", "out of memory")
    assert row["p_fidelity"] is None and row["p_pair"] is None
    assert verdicts.height == 3


# The small pipeline reads 32 letters, the small verifier 12 words, two of them special.
LONG = "a hand holds a red box with a left hand on a wall with a blue ball"


def test_object_beyond_the_limit_is_told_in_the_candidate_and_in_its_verdict(world: World) -> None:
    texts = ["a red box", LONG, "a red ball on a wall with a box"]
    table = world.propose(world.with_candidates(per_prompt=1), None, texts)
    assert table.schema == pl.Schema(CANDIDATE_ROWS.schema)
    identifier = len(world.category.identifier)
    letters = [identifier + len(text.replace(" ", "")) + 2 for text in texts]
    assert table["text_encoder_tokens"].to_list() == letters
    assert table["text_encoder_2_tokens"].to_list() == letters
    assert table["prompt_cut"].to_list() == [count > 32 for count in letters]
    assert table["prompt_cut"].to_list()[:2] == [False, True]
    assert table["cut_by"].to_list()[:2] == [None, "text_encoder, text_encoder_2"]
    assert any("longer than the 32 tokens that text_encoder reads" in one for one in world.logged)
    assert not any("negative" in one for one in world.logged)

    lost = table.with_columns(
        pixels=pl.when(pl.col("prompt_id") == "c").then(None).otherwise("pixels"),
        reason=pl.when(pl.col("prompt_id") == "c").then(pl.lit("out of memory")),
    )
    verdicts = verify_candidates(world.store, world.settings, lost, world.verifier, print)
    assert verdicts["prompt_tokens"].to_list() == [5, 19, None]
    assert verdicts["prompt_cut"].to_list() == [False, True, None]


def test_images_of_homes_written_before_are_found_and_get_their_counts(world: World) -> None:
    settings = world.with_candidates(per_prompt=1)
    table = world.propose(settings, None)
    with sqlite3.connect(world.store.ledger.path) as ledger:
        forgotten = ledger.execute("DELETE FROM made WHERE kind = 'token_count'").rowcount
    assert forgotten == len(PROMPTS)
    world.logged.clear()
    assert world.propose(settings, None).equals(table)
    assert "candidates of hook: all 3 found in the cache" in world.logged


def test_evaluation_images_say_what_was_read_of_the_drawn_prompt(world: World) -> None:
    quick = world.settings.evaluation.model_copy(
        update={"images_per_prompt": 1, "hoi_prompts_per_category": 1, "general_prompts": 12}
    )
    settings = world.settings.model_copy(update={"evaluation": quick})
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    table = draw_evaluation_images(
        world.store, settings, taxonomy, "hook", world.lora, world.lora, world.logged.append
    )
    assert table.schema == pl.Schema(EVALUATION_IMAGE_ROWS.schema)
    for row in table.iter_rows(named=True):
        assert row["prompt_cut"] == (row["text_encoder_2_tokens"] > 32)
    # The identifier is read too.
    tokens = {row["method"]: row["text_encoder_tokens"] for row in table.to_dicts()}
    assert tokens["dreambooth"] > tokens["base"] == tokens["finetuned"]
    assert table["prompt_cut"].any()


def test_negative_prompt_that_is_cut_is_logged(world: World) -> None:
    long = world.settings.sampling.model_copy(update={"negative_prompt": LONG})
    settings = world.with_candidates(per_prompt=1).model_copy(update={"sampling": long})
    table = world.propose(settings, None)
    assert "negative prompts of hook: 1 of 1 texts are longer" in "\n".join(world.logged)
    assert not table["prompt_cut"].any()
