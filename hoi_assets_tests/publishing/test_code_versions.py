"""`code_version` follows the recipes: templates, modules, settings."""

from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.publishing.code_versions import differences, read_lock, recipe_digest, write_lock
from hoi_assets.publishing.graph import stages_in
from hoi_assets.publishing.stage import Stage, stage
from hoi_assets_tests.publishing.small_pipeline import prompts


def declared(
    recipe: list[str], code_version: str = "1", settings: list[str] | None = None
) -> Stage:
    make = stage("drawn", code_version=code_version, recipe=recipe, settings=settings or [])
    return make(prompts.function)


def test_code_version_was_raised_wherever_a_recipe_changed():
    assert differences(stages_in("hoi_assets.defs"), read_lock()) == []


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "prompt.j2").write_text("Draw {{ object }}.", encoding="utf-8")
    (tmp_path / "draw.py").write_text(
        '"""Draws."""\n\n\ndef draw(n: int) -> int:\n    """Draw n."""\n    return n + 1\n',
        encoding="utf-8",
    )
    return tmp_path


def test_template_and_code_count_but_words_about_them_do_not(recipe: Path):
    drawn = declared(["templates", "draw.py"])
    before = recipe_digest(drawn, recipe)
    code = recipe / "draw.py"
    code.write_text(
        code.read_text(encoding="utf-8").replace("Draw n.", "Draw it.") + "# a comment\n",
        encoding="utf-8",
    )
    assert recipe_digest(drawn, recipe) == before
    code.write_text(code.read_text(encoding="utf-8").replace("n + 1", "n + 2"), encoding="utf-8")
    after_code = recipe_digest(drawn, recipe)
    assert after_code != before
    (recipe / "templates" / "prompt.j2").write_text("Paint {{ object }}.", encoding="utf-8")
    assert recipe_digest(drawn, recipe) != after_code


def test_settings_read_by_a_stage_count():
    one, two = declared([], settings=["sampling"]), declared([], settings=["lora"])
    assert recipe_digest(one) != recipe_digest(two)


def test_changed_recipe_with_the_same_code_version_is_told(tmp_path: Path):
    lock = tmp_path / "lock.yaml"
    write_lock([declared(["pyproject.toml"])], path=lock)
    changed = declared(["Makefile"])
    assert "code_version is still '1'" in differences([changed], read_lock(lock))[0]
    with pytest.raises(HoiError, match="drawn changed and code_version did not"):
        write_lock([changed], path=lock)
    raised = declared(["Makefile"], code_version="2")
    assert "run `hoi lock-code-versions`" in differences([raised], read_lock(lock))[0]
    write_lock([raised], path=lock)
    assert differences([raised], read_lock(lock)) == []


def test_a_change_declared_harmless_is_locked_with_the_same_code_version(tmp_path: Path):
    lock = tmp_path / "lock.yaml"
    write_lock([declared(["pyproject.toml"])], path=lock)
    changed = declared(["Makefile"])
    write_lock([changed], same_output=["drawn"], path=lock)
    assert differences([changed], read_lock(lock)) == []


def test_recipe_that_names_no_file_is_told():
    with pytest.raises(HoiError, match="no_such_file"):
        recipe_digest(declared(["no_such_file.j2"]))
