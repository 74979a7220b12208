"""Where files are looked for; outside of a checkout, see test_wheel.py."""

from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT, ModelRef, home_folder, models_folder, resolve_path
from hoi_assets.settings.locations import is_stored
from hoi_assets.store.weights import fetched_folder, model_digest


def test_relative_path_is_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_path("data/taxonomy") == ROOT / "data" / "taxonomy"
    assert resolve_path("no/such") == ROOT / "no" / "such"


def test_path_below_the_working_folder_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_path("mine") == tmp_path / "mine"


def test_absolute_path_and_home_stand_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert resolve_path("~/pictures") == Path("/somewhere/pictures")
    assert resolve_path("/data/pool") == Path("/data/pool")


def test_data_folder_of_ones_own_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.setenv("HOI_DATA", str(tmp_path))
    assert resolve_path("data/models/tiny") == tmp_path / "models" / "tiny"
    assert resolve_path("data/taxonomy") == ROOT / "data" / "taxonomy"


def test_missing_weights_say_how_to_get_them_back() -> None:
    with pytest.raises(HoiError, match=r"git checkout -- data/models/tiny/nix[\s\S]*make weights"):
        model_digest(ModelRef(source="data/models/tiny/nix"))


def test_models_that_git_ignores_are_fetched_not_checked_out() -> None:
    with pytest.raises(HoiError) as caught:
        model_digest(ModelRef(source="data/models/full/nix"))
    assert "hoi models fetch" in caught.value.remedy
    assert "git checkout" not in caught.value.remedy


def test_stored_data_is_known_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOI_DATA", str(tmp_path))
    assert is_stored(str(ROOT / "data" / "pool")) and is_stored(str(tmp_path / "models" / "tiny"))
    assert not is_stored("data/models/tiny2") and not is_stored(str(tmp_path / "models" / "full"))


def test_fetched_models_go_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOI_MODELS", str(tmp_path))
    ref = ModelRef(source="owner/model", revision="a" * 40)
    assert fetched_folder(ref) == tmp_path / "owner" / "model" / ("a" * 40)
    monkeypatch.delenv("HOI_MODELS")
    assert models_folder() == ROOT / "data" / "models" / "full"


def test_outputs_go_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    assert home_folder() == tmp_path / "home"
    monkeypatch.delenv("HOI_HOME")
    assert home_folder() == (ROOT / "data" / "out").resolve()
