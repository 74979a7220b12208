"""The plan: counts that the settings fix, costs that are measured or unknown, nothing guessed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hoi_assets.detailscribe.benchmark import benchmark_folder, read_benchmark
from hoi_assets.detailscribe.decomposers import RuleDecomposer
from hoi_assets.ppv.verifier_pairs import count_views
from hoi_assets.preflight.costs import Plan, make_plan
from hoi_assets.preflight.plan import plan_work
from hoi_assets.preflight.speed import Drawing, Speeds, read_speeds
from hoi_assets.settings import Settings, load_settings
from hoi_assets.store.images import encode_picture
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import load_taxonomy

CATEGORY = "index_press"
SCENARIOS = ("functional",)
CHAT = {"endpoint": "http://127.0.0.1:9/v1", "model": "a-model"}


def profile(**sections: dict[str, Any]) -> Settings:
    """The tiny profile with other values in some sections."""
    tiny = load_settings("tiny")
    data = tiny.model_dump()
    for name, values in sections.items():
        data[name] |= values
    return Settings.model_validate(data)


def plan_of(settings: Settings, home: Path, categories=(CATEGORY,), scenarios=()) -> Plan:
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    return make_plan(settings, taxonomy, home, categories, scenarios)


def row(made: Plan, asset: str):
    return next(one for one in made.assets if one.asset == asset)


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))


def test_budget_and_goal_are_per_category(tmp_path: Path) -> None:
    settings = profile(candidates={"accepted_goal": 50, "budget": 400})
    made = plan_of(settings, tmp_path, (CATEGORY, "worn"))
    assert row(made, "candidate_images").pictures == 2 * 400
    assert "both are per category" in (made.candidates or "")
    without = plan_of(profile(), tmp_path)
    prompts = len(load_taxonomy(settings.taxonomy_folder).categories[CATEGORY].base_prompts)
    assert row(without, "candidate_images").pictures == prompts * settings.prompter.per_base_prompt


def test_every_picture_of_the_categories_is_counted(tmp_path: Path) -> None:
    settings = profile(
        lora={"num_class_images": 10},
        evaluation={
            "hoi_prompts_per_category": 3,
            "general_prompts": 0,
            "images_per_prompt": 4,
        },
        verifier={"training_pairs": 100},
    )
    made = plan_of(settings, tmp_path)
    pictures = {one.asset: one.pictures for one in made.assets if one.pictures}
    assert pictures["category_loras"] == 10 + 16
    assert pictures["hoi_evaluation_images"] == 3 * 4 * 3
    views = count_views(settings)
    assert pictures["verifier_training_pairs"] == views["vae"] + views["renoised"] > 0
    assert made.total.pictures == sum(pictures.values())
    steps = settings.lora.max_train_steps + settings.finetuning.max_train_steps
    assert made.total.training_steps == steps


def test_scenario_counts_variants_rounds_and_equal_compute(tmp_path: Path) -> None:
    settings = profile(interacting={"rows_per_scenario": 5})
    made = plan_of(settings, tmp_path, (), ("functional",))
    # 28 guided steps are 56 evaluations, the variants from steps 0, 1, 2, 4 take 210: four images.
    assert row(made, "initial_images").denoiser_evaluations == 5 * 56
    assert row(made, "refined_images").pictures == 5 * (4 + 3)
    assert row(made, "refined_images").denoiser_evaluations == 5 * (210 + 3 * 56)
    # Refine's first picture is the variant of switch step 0.
    assert row(made, "baseline_images").pictures == 5 * (3 + 4 + 2)
    assert {one.asset for one in made.assets}.isdisjoint({"category_loras", "finetuned_model"})


def test_money_is_known_where_every_price_is(tmp_path: Path) -> None:
    prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 8.0}
    priced = plan_of(profile(prompter={**CHAT, **prices, "budget_usd": 3.0}), tmp_path)
    (calls,) = priced.calls
    assert calls.input_tokens and calls.output_tokens
    expected = (2 * calls.input_tokens + 8 * calls.output_tokens) / 1e6
    assert priced.total.usd == pytest.approx(expected) and calls.cap_usd == 3.0
    assert calls.count == row(priced, "detailed_prompts").calls > 0
    unpriced = plan_of(profile(prompter=CHAT), tmp_path)
    assert unpriced.total.usd is None and unpriced.calls[0].usd is None
    assert plan_of(profile(), tmp_path).total.usd == 0


def test_critic_is_called_for_every_picture_it_may_select(tmp_path: Path) -> None:
    settings = profile(critic=CHAT, judge=CHAT, interacting={"rows_per_scenario": 2})
    made = plan_of(settings, tmp_path, (), ("functional",))
    calls = {one.section: one.count for one in made.calls}
    assert calls == {"critic": 2 * (1 + 7 + 9), "judge": 2 * 7}
    rated = settings.model_copy(
        update={"judge": settings.judge.model_copy(update={"rates": "all"})}
    )
    made = plan_of(rated, tmp_path, (), ("functional",))
    assert {one.section: one.count for one in made.calls}["judge"] == 2 * (1 + 7 + 9)


def test_published_protocol_critiques_suggests_and_selects(tmp_path: Path) -> None:
    published = {"seeds": [1, 2], "baseline_images": "one", "craft_rounds": 0}
    settings = profile(
        critic={**CHAT, "protocol": "published"},
        redenoising=published,
        interacting={"rows_per_scenario": 2},
    )
    made = plan_of(settings, tmp_path, (), ("functional",))
    calls = {one.asset: one.calls // 2 for one in made.assets if one.calls}
    # To select it judges the initial picture and four variants; then three pictures of baselines,
    # of which one prompt was its suggestion.
    assert calls == {"image_critiques": 1, "refined_images": 5, "baseline_images": 3 + 1}
    assert row(made, "baseline_images").pictures == 2 * 3


def test_repairs_and_edits_are_counted_with_the_model_that_draws_them(tmp_path: Path) -> None:
    tiny, rows = load_settings("tiny").model_dump(), {"rows_per_scenario": 2}
    models = tiny["models"] | {"editor": {"source": "an/editor", "revision": "0" * 40}}
    settings = profile(critic=CHAT, interacting=rows)
    own = {
        "models": models,
        "local_repair": {"strength": 0.5},
        "image_editing": {"num_inference_steps": 10, "max_edits": 3},
    }
    both = Settings.model_validate(settings.model_dump() | own)
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    work = [
        one
        for one in plan_work(both, taxonomy, (), ("functional",))
        if one.asset == "refined_images" and one.pictures
    ]
    # 14 guided steps a repair: seven within the 210 evaluations of the variants.
    assert [(one.model, one.pictures, one.evaluations) for one in work] == [
        ("benchmark", 2 * 7, 2 * (210 + 3 * 56)),
        ("benchmark", 2 * 7, 2 * 7 * 28),
        ("editor", 2 * 3, 2 * 3 * 20),
    ]
    made = plan_of(both, tmp_path, (), ("functional",))
    assert row(made, "refined_images").calls == 2 * (7 + 7 + 3)
    assert row(made, "refined_images").hours is None, "nobody measured the editor"


def test_probabilities_of_yes_are_asked_of_selected_pictures_and_their_components(
    tmp_path: Path,
) -> None:
    settings = profile(interacting={"rows_per_scenario": 2})
    own = {"vqa_score": {**CHAT, "image_tokens": 100}}
    made = plan_of(Settings.model_validate(settings.model_dump() | own), tmp_path, (), SCENARIOS)
    prompts = [row.prompt for row in read_benchmark(benchmark_folder(None), SCENARIOS, 2)]
    found = RuleDecomposer().ask(
        {prompt: prompt for prompt in prompts}, lambda *_: None, lambda _: None
    )
    components = sum(len(one.value or ()) for one in found.values())
    (calls,) = made.calls
    assert (calls.section, calls.count) == ("vqa_score", 7 * (len(prompts) + components))
    assert calls.output_tokens == calls.count and (calls.input_tokens or 0) > 100 * calls.count


def test_anatomy_is_asked_of_candidates_labelled_and_evaluation_pictures(tmp_path: Path) -> None:
    settings = profile(
        evaluation={"hoi_prompts_per_category": 3, "general_prompts": 4, "images_per_prompt": 2}
    )
    own = {"anatomy": {**CHAT, "calibration_images": 30, "image_tokens": 100}}
    made = plan_of(Settings.model_validate(settings.model_dump() | own), tmp_path)
    candidates = row(made, "candidate_images").pictures
    assert row(made, "verified_pairs").calls == candidates + 2 * 30
    assert row(made, "hoi_scorecards").calls == 3 * 2 * 3
    (calls,) = made.calls
    # A request shows the whole picture and four parts.
    assert calls.section == "anatomy" and calls.input_tokens > calls.count * 5 * 100


def test_disk_is_measured_on_pictures_of_the_same_size(tmp_path: Path) -> None:
    settings = profile(sampling={"width": 192, "height": 256})
    assert plan_of(settings, tmp_path).total.gb == {"png": None, "webp": None}
    pictures = [photo(seed, (192, 256)) for seed in range(3)]
    store = Store(tmp_path)
    for one in (*pictures, photo(9, (64, 64))):
        store.images.put(one)
    made = plan_of(settings, tmp_path)
    measured = made.bytes_per_picture["base"]
    assert measured is not None and (measured.samples, measured.size) == (3, (192, 256))
    png = round(sum(len(encode_picture(one, "png")) for one in pictures) / 3)
    assert measured.by_format["png"] == png > measured.by_format["webp"]
    assert made.total.gb["png"] == pytest.approx(made.total.pictures * png / 1e9)


def test_small_photos_are_not_scaled_up_to_be_measured(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / CATEGORY
    folder.mkdir(parents=True)
    photo(1, (100, 100)).save(folder / "small.png")
    photos = {"folder": str(folder.parent)}
    large = profile(instance_images=photos, sampling={"width": 128, "height": 128})
    assert plan_of(large, tmp_path / "home").bytes_per_picture["base"] is None
    small = profile(instance_images=photos, sampling={"width": 64, "height": 96})
    measured = plan_of(small, tmp_path / "home").bytes_per_picture["base"]
    assert measured is not None and "instance pictures" in measured.source


def test_hours_need_a_measured_step_of_every_model_and_training(tmp_path: Path) -> None:
    from hoi_assets.preflight.costs import _hours

    settings = profile()
    work = plan_work(settings, load_taxonomy(settings.taxonomy_folder), (CATEGORY,), ())
    assert read_speeds(settings, tmp_path) == Speeds()
    speeds = Speeds({"base": Drawing(0.5, 2.0)}, {"lora": 3.0, "finetuning": 4.0})
    seconds = sum(2.0 * one.pictures + 0.5 * one.evaluations for one in work)
    seconds += 3.0 * settings.lora.max_train_steps + 4.0 * settings.finetuning.max_train_steps
    assert _hours(work, speeds) == pytest.approx(seconds / 3600)
    assert _hours(work, replace(speeds, training={"lora": 3.0})) is None
    assert _hours(work, replace(speeds, drawing={})) is None
