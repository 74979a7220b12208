"""Which paths can be a home, and to which profile one belongs."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.catalogue import query
from hoi_assets.store.home import IDENTITY, profile_of
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import publish

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize(
    "name", ["[D]", "a?b", "a*b", "a%41b", "a\\b", "a::b", "two\nlines", "bell\a", "latin-\udce9"]
)
def test_path_that_a_library_would_misread_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(HoiError, match="set HOI_HOME to a folder whose path is free of"):
        Store(tmp_path / name / "home")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a b", "a#b", "it's", 'say "x"', "é 手", "{x}", "a;b&c", "a=b,c", "-x", "$HOME", "~x"]
)
def test_other_paths_store_and_answer(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name, "tiny")
    publish(store, rows={"x": [1]})
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [1]
    assert query(store, "select x from detailed_prompts")["x"].to_list() == [1]


def test_dataset_of_a_home_with_an_odd_path_opens_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import polars as pl

    from hoi_assets.publishing.asset import shown

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    store = Store(tmp_path / "it's #2 é")
    with store.stage("hoi_dataset") as staging:
        (staging.path / "dataset" / "data").mkdir(parents=True)
        rows = pl.DataFrame({"prompt": ["a hand", "a mug"]})
        rows.write_parquet(staging.path / "dataset" / "data" / "train-00000.parquet")
        published = store.publish(staging, {}, None)
    text = "datasets.load_dataset('<path>/dataset')"
    printed = shown({"open": {"kind": "markdown", "value": text}}, published)["open"].value
    assert eval(printed, {"datasets": datasets})["train"].num_rows == 2


def test_home_belongs_to_the_first_profile_that_writes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store(home, "full")  # reading alone claims nothing
    assert profile_of(home) is None
    publish(Store(home, "tiny"))
    assert profile_of(home) == "tiny"
    assert json.loads((home / IDENTITY).read_text(encoding="utf-8")) == {"profile": "tiny"}
    with pytest.raises(HoiError, match="belongs to the profile 'tiny', not to 'full'") as refused:
        Store(home, "full")
    for remedy in ("--profile", "set HOI_HOME", "renamed"):
        assert remedy in refused.value.remedy
    assert Store(home, "tiny").require("detailed_prompts", "hook")
    assert Store(home).profile is None  # what knows no profile may still read


def test_home_of_an_earlier_release_is_adopted(tmp_path: Path) -> None:
    publish(Store(tmp_path))
    assert profile_of(tmp_path) is None
    publish(Store(tmp_path, "mine"), rows={"x": [2]})
    assert profile_of(tmp_path) == "mine"


def test_damaged_identity_says_what_to_do(tmp_path: Path) -> None:
    publish(Store(tmp_path, "tiny"))
    (tmp_path / IDENTITY).write_text("{", encoding="utf-8")
    with pytest.raises(HoiError, match=r"home\.json does not say which profile"):
        Store(tmp_path, "tiny")


def _claim(home: Path, profile: str, results: Any) -> None:
    try:
        store = Store(home, profile)
        with store.stage("verifier") as staging:
            staging.write_text("x", "x")
            store.publish(staging, {}, None)
        results.put(profile)
    except HoiError:
        results.put(None)


def test_profiles_that_claim_a_home_at_once_do_not_share_it(tmp_path: Path) -> None:
    results = FORK.Queue()
    profiles = [f"p{n}" for n in range(8)]
    processes = [FORK.Process(target=_claim, args=(tmp_path, p, results)) for p in profiles]
    for process in processes:
        process.start()
    winners = {results.get(timeout=60) for _ in processes} - {None}
    for process in processes:
        process.join(10)
    assert winners == {profile_of(tmp_path)}
