"""The built wheel works outside of any checkout: nothing is read from this one but `HOI_DATA`."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hoi_assets.settings import ROOT

SOURCES = ("hoi_assets", "data", "setup.py", "pyproject.toml", "README.md", "LICENSE",
           "dagster.yaml", "workspace.yaml")  # fmt: skip
NOT_SOURCE = shutil.ignore_patterns(
    "__pycache__", "*.egg-info", "out", "models", "pool", "world", "training", "eye_labels"
)
OWN_VARIABLES = ("HOI_HOME", "HOI_PROFILE", "HOI_DATA", "DAGSTER_HOME", "PYTHONPATH")
CATEGORY = "index_press"
DELETED = "deleted.py"  # a module that an earlier build left in build/


@dataclass(frozen=True)
class Installed:
    """The wheel, where it is installed, and the working folder of its user."""

    wheel: Path
    target: Path
    folder: Path

    def python(self, *arguments: str, check: bool = True, **variables: str) -> str:
        """Run Python on the installed package alone; returns what it printed."""
        environment = {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={
                **environment,
                "PYTHONPATH": str(self.target),
                "OMP_NUM_THREADS": "1",
                **variables,
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=500,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def materialise(self, *selection: str) -> str:
        """Through Dagster's own command, as in its documentation."""
        command = ["-m", "dagster", "asset", "materialize", "-m", "hoi_assets.definitions"]
        dagster_home = self.folder / "dagster_home"
        dagster_home.mkdir(exist_ok=True)
        return self.python(*command, "--select", *selection, DAGSTER_HOME=str(dagster_home))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    # From a copy, because building leaves files beside the sources.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=NOT_SOURCE)
        else:
            shutil.copy(ROOT / name, source / name)
    left = source / "build" / "lib" / "hoi_assets" / DELETED
    left.parent.mkdir(parents=True)
    left.write_text("", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
    )
    work = folder / "work"
    work.mkdir()
    return Installed(wheel, target, work)


def test_wheel_holds_the_package_its_templates_and_the_committed_inputs(
    installed: Installed,
) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hoi_assets").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= names
    bundle = {n.removeprefix("hoi_assets/_bundle/") for n in names if "/_bundle/" in n}
    categories = {f"data/taxonomy/categories/{p.name}" for p in (ROOT / "data/taxonomy/categories").iterdir()}  # fmt: skip  # noqa: E501
    assert categories <= bundle
    assert {"data/profiles/tiny.yaml", "data/profiles/full.yaml"} <= bundle
    assert {"data/interacting/functional.jsonl", "dagster.yaml", "workspace.yaml"} <= bundle
    assert not any(name.startswith("hoi_assets_tests") for name in names)
    assert f"hoi_assets/{DELETED}" not in names
    assert installed.wheel.stat().st_size < 2 * 1024**2


def test_installed_command_reads_its_own_profiles_and_writes_below_the_working_folder(
    installed: Installed,
) -> None:
    assert "run" in installed.python("-m", "hoi_assets.cli.main", "--help")
    code = (
        "import hoi_assets; from hoi_assets.settings import *; settings = load_settings('full');"
        "print(hoi_assets.__file__, home_folder(), settings.taxonomy_folder, sep='\\n')"
    )
    file, home, taxonomy = installed.python("-c", code).splitlines()
    assert Path(file).is_relative_to(installed.target)
    assert Path(taxonomy).is_relative_to(installed.target)
    assert Path(home) == installed.folder / "hoi-data"


def test_missing_weights_are_asked_for_by_name_and_found_where_hoi_data_says(
    installed: Installed,
) -> None:
    code = (
        "from hoi_assets.settings import load_settings;"
        "from hoi_assets.store.weights import weights_folder;"
        "print(weights_folder(load_settings('tiny').models.base))"
    )
    said = installed.python("-c", code, check=False)
    assert "data/models/tiny/sdxl" in said and "set HOI_DATA to a folder that holds models" in said
    found = installed.python("-c", code, HOI_DATA=str(ROOT / "data"))
    assert Path(found.strip()) == ROOT / "data" / "models" / "tiny" / "sdxl"


def test_damaged_weights_are_asked_for_without_a_checkouts_commands(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    code = (
        "from hoi_assets.engines.pretrained import require_files;"
        "from hoi_assets.settings import ModelRef;"
        f"require_files(ModelRef(source={str(tmp_path / 'model')!r}), ['config.json'])"
    )
    message = installed.python("-c", code, check=False)
    assert "config.json is missing" in message and "hoi models fetch" in message
    assert "git checkout" not in message
    code = (
        "from hoi_assets.store.weights import model_digest;"
        "from hoi_assets.settings import ModelRef;"
        "model_digest(ModelRef(source='data/models/tiny/clip'))"
    )
    message = installed.python("-c", code, check=False)
    assert "set HOI_DATA" in message and "git checkout" not in message


def test_commands_name_what_works_outside_of_a_checkout(installed: Installed) -> None:
    hoi = ("-m", "hoi_assets.cli.main")
    assert "browser: hoi ui" in installed.python(*hoi, "summary")
    message = installed.python(*hoi, "lock-code-versions", check=False)
    assert message.startswith("error: code versions are locked in a checkout")


def test_category_is_materialised_outside_of_a_checkout(installed: Installed) -> None:
    installed.materialise("base_prompt_taxonomy")
    installed.materialise("detailed_prompts", "--partition", CATEGORY)
    home = installed.folder / "hoi-data"
    assert (home / "assets" / "detailed_prompts" / CATEGORY / "current.json").is_file()
