"""`code_version` follows the recipes, which are computed from imports."""

import importlib.util
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hoi_assets.defs.project import published_below
from hoi_assets.errors import HoiError
from hoi_assets.publishing import code_versions
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.code_versions import (
    differences,
    read_lock,
    recipe_digest,
    recipe_files,
    write_lock,
)
from hoi_assets.publishing.stage import Stage


def stages() -> dict[str, Stage]:
    found = [stage_of(asset) for asset in published_below("hoi_assets.defs")]
    return {stage.name: stage for stage in found}


def test_code_version_was_raised_wherever_a_recipe_changed():
    assert differences(stages().values(), read_lock()) == []


def test_recipes_hold_what_determines_the_output_at_any_depth():
    files = recipe_files(stages()["detailed_prompts"])
    assert "hoi_assets.ppv.slot_grammar" in files
    assert "hoi_assets.grammar.vocabulary" in files
    assert "hoi_assets/ppv/templates/system.j2" in files
    assert not any(name.startswith(("hoi_assets.store", "hoi_assets.defs")) for name in files)
    drawn = recipe_files(stages()["refined_images"])
    assert "hoi_assets.engines.sd3.redenoising" in drawn
    assert not any(name.startswith("hoi_assets.ppv") for name in drawn)


ASSET = '''
    from hoi_assets.publishing.asset import published_asset
    from hoi_assets.publishing.context import Result
    from hoi_assets.publishing.expectations import row_count, suite

    COUNT = 3


    @published_asset(code_version="{version}", suite=suite(rows=[row_count()]), settings={settings})
    def drawn(context, staging):
        """Draws."""
        from hoi_assets.drawing import draw

        draw(COUNT)
        return _result()


    def _result():
        return Result()


    def unrelated():
        return 1
'''


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., Stage]:
    """A stage of a project of its own below `tmp_path`, and a way to change its sources."""
    package = tmp_path / "hoi_assets"
    (package / "ppv" / "templates").mkdir(parents=True)
    sources = {
        "drawing.py": 'from hoi_assets.colours import RED\nTEMPLATE = "prompt.j2"\n\n\n'
        'def draw(n):\n    """Draw n."""\n    return n, RED\n',
        "colours.py": "RED = 1\n",
        "ppv/templates/prompt.j2": "Draw {{ object }}.",
        "asset.py": textwrap.dedent(ASSET),
    }

    def make(version: str = "1", settings: str = "()", **changes: str) -> Stage:
        for name, text in sources.items():
            found = changes.get(Path(name).stem, text)
            if name == "asset.py":
                found = found.replace("{version}", version).replace("{settings}", settings)
            (package / name).write_text(found, encoding="utf-8")
        for cached in (code_versions._parsed, code_versions._file, code_versions._references):
            cached.cache_clear()
        spec = importlib.util.spec_from_file_location("drawn_asset", package / "asset.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return stage_of(module.drawn)

    return make


def test_code_and_templates_count_at_any_depth_but_words_about_them_do_not(drawn, tmp_path):
    before = recipe_digest(drawn(), tmp_path)
    same = 'from hoi_assets.colours import RED\nTEMPLATE = "prompt.j2"\n\n\n'
    assert (
        recipe_digest(drawn(drawing=same + "def draw(n):\n    return n, RED  # red\n"), tmp_path)
        == before
    )
    assert recipe_digest(drawn(colours="RED = 2\n"), tmp_path) != before
    assert recipe_digest(drawn(prompt="Paint {{ object }}."), tmp_path) != before
    asset = textwrap.dedent(ASSET)
    assert recipe_digest(drawn(asset=asset.replace("Draws.", "It draws.")), tmp_path) == before
    assert recipe_digest(drawn(asset=asset.replace("return 1", "return 2")), tmp_path) == before
    local = asset.replace("    return 1", "    COUNT = 9\n    return COUNT")
    assert recipe_digest(drawn(asset=local), tmp_path) == before
    assert recipe_digest(drawn(asset=asset.replace("COUNT = 3", "COUNT = 4")), tmp_path) != before
    assert (
        recipe_digest(drawn(asset=asset.replace("return Result()", "return None")), tmp_path)
        != before
    )


def test_settings_read_by_an_asset_count(drawn, tmp_path):
    assert recipe_digest(drawn(settings='["sampling"]'), tmp_path) != recipe_digest(
        drawn(settings='["lora"]')
    )


def test_changed_recipe_with_the_same_code_version_is_reported(drawn, tmp_path: Path):
    lock = tmp_path / "lock.yaml"
    write_lock([drawn()], path=lock, root=tmp_path)
    changed = drawn(colours="RED = 2\n")
    assert "code_version is still '1'" in differences([changed], read_lock(lock), tmp_path)[0]
    with pytest.raises(HoiError, match="drawn changed and code_version did not"):
        write_lock([changed], path=lock, root=tmp_path)
    raised = replace(changed, code_version="2")
    assert "run `hoi lock-code-versions`" in differences([raised], read_lock(lock), tmp_path)[0]
    write_lock([raised], path=lock, root=tmp_path)
    assert differences([raised], read_lock(lock), tmp_path) == []


def test_a_change_declared_harmless_is_locked_with_the_same_code_version(drawn, tmp_path: Path):
    lock = tmp_path / "lock.yaml"
    write_lock([drawn()], path=lock, root=tmp_path)
    changed = drawn(colours="RED = 2\n")
    write_lock([changed], same_output=["drawn"], path=lock, root=tmp_path)
    assert differences([changed], read_lock(lock), tmp_path) == []
