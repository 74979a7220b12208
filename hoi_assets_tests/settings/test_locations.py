"""Where files are looked for; outside of a checkout, see test_wheel.py."""

from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT, ModelRef, home_folder, resolve_path
from hoi_assets.store.weights import model_digest


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


def test_outputs_go_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    assert home_folder() == tmp_path / "home"
    monkeypatch.delenv("HOI_HOME")
    assert home_folder() == (ROOT / "data" / "out").resolve()
