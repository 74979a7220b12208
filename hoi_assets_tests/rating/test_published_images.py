"""What a study can be made of: the pictures in force, those chosen, those drawn."""

from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.rating.published_images import (
    find_images,
    find_interacting_images,
    make_suite_study,
)
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.published import publish_evaluation, small_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return small_store(tmp_path / "home")


def test_hoi_and_general_are_studies_of_their_own_without_what_failed(store: Store) -> None:
    hoi, general = find_images(store, "hoi"), find_images(store, "general")
    # Two categories, four prompts, three methods; the failed picture of each is a general one.
    assert (hoi.height, general.height) == (24, 22)
    assert set(hoi["category"]) == {"hook", "worn"} and set(general["category"]) == {None}
    assert set(hoi["suite"]) == {"hoi"} and hoi["scenario"].null_count() == 24


def test_second_line_shows_what_its_methods_chose(store: Store) -> None:
    found = find_interacting_images(store)
    assert found.height == 12
    assert set(found["method"]) == {"detailscribe", "craft", "plain", "rewrite"}
    assert set(found["scenario"]) == {"functional"} and set(found["suite"]) == {"interacting"}
    chosen = find_images(store, "interacting", ["plain", "detailscribe"])
    assert set(chosen["method"]) == {"plain", "detailscribe"}


@pytest.mark.parametrize("suite", ["hoi", "general", "interacting", "labels"])
def test_categories_removed_from_the_taxonomy_are_not_offered(store: Store, suite: str) -> None:
    whole = find_images(store, suite)
    kept = find_images(store, suite, known=["hook", "functional"])
    assert set(kept["category"]) <= {"hook", None} and kept.height > 0
    assert kept.height < whole.height or set(whole["category"]) <= {"hook", None}
    gone = ["functional"] if suite != "interacting" else ["hook"]
    with pytest.raises(HoiError, match=f"no picture of suite '{suite}' is published"):
        find_images(store, suite, known=gone)


def test_study_knows_the_suite_of_its_items_and_its_pictures(store: Store, tmp_path: Path) -> None:
    study = make_suite_study(store, tmp_path / "study", "interacting", "pairwise", prompts=2)
    # Two prompts, six pairs of four methods.
    assert len(study.items) == 12
    assert {item.suite for item in study.items} == {"interacting"}
    shown = {one.image for item in study.items for one in item.pictures}
    assert shown <= set(find_interacting_images(store)["pixels"])


def test_pairs_compare_one_picture_of_each_method(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    publish_evaluation(store, prompts=2, images_per_prompt=2)
    study = make_suite_study(store, tmp_path / "study", "hoi", "pairwise")
    first = find_images(store, "hoi").filter(seed=0)
    assert {one.image for item in study.items for one in item.pictures} == set(first["pixels"])
    rated = make_suite_study(store, tmp_path / "rated", "hoi", "rating")
    assert len(rated.items) == 2 * 2 * 3 * 2


def test_picture_missing_from_the_store_is_named_and_the_rest_goes_on(
    store: Store, tmp_path: Path
) -> None:
    lost = find_images(store, "labels")["pixels"][1]
    store.images.path(lost).unlink()
    study = make_suite_study(store, tmp_path / "study", "labels", "verify")
    assert len(study.items) == 2
    assert [one.number for one in study.left_out] == [2] and lost in study.left_out[0].reason


def test_what_cannot_be_asked_is_said(store: Store, tmp_path: Path) -> None:
    empty = Store(tmp_path / "empty")
    for suite in ("hoi", "general", "interacting", "labels"):
        with pytest.raises(HoiError, match="is published"):
            find_images(empty, suite)
    with pytest.raises(HoiError, match="no method 'finetund'\n  name some of: base, dream"):
        find_images(store, "hoi", ["finetund"])
    with pytest.raises(HoiError, match="no suite"):
        find_images(store, "hoy")
    for suite, mode in (("labels", "rating"), ("hoi", "verify")):
        with pytest.raises(HoiError, match="is made of suite"):
            make_suite_study(store, tmp_path / "study", suite, mode)  # type: ignore[arg-type]
    with pytest.raises(HoiError, match="0 prompts"):
        make_suite_study(store, tmp_path / "study", "hoi", "rating", prompts=0)
    assert not (tmp_path / "study").exists()
