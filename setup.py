"""Puts committed data into the wheel; everything else is declared in pyproject.toml.

Profiles, taxonomy, benchmark and Dagster's configuration stay where they are in the checkout. A
wheel holds a copy in `hoi_assets/_bundle`, laid out as the checkout is; editable installs read the
checkout itself. See `hoi_assets/settings/locations.py`.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLED = (
    "dagster.yaml",
    "workspace.yaml",
    "data/reference_scores.json",
    "data/interacting/*.jsonl",
    "data/profiles/*.yaml",
    "data/taxonomy/**/*.yaml",
)


def bundled_files() -> list[str]:
    """Names of the files to copy, relative to the checkout."""
    found = {pattern: sorted(Path().glob(pattern)) for pattern in BUNDLED}
    missing = [pattern for pattern, paths in found.items() if not paths]
    if missing:
        raise SystemExit(f"setup.py: no file matches {', '.join(missing)} in {Path.cwd()}")
    return [path.as_posix() for paths in found.values() for path in paths]


class BuildWithBundle(build_py):
    """Builds the package and copies the bundled files into it."""

    def run(self) -> None:
        if not self.editable_mode:
            # setuptools leaves build/ behind: modules deleted since would travel in the next wheel.
            shutil.rmtree(Path(self.build_lib) / "hoi_assets", ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        for name in bundled_files():
            target = Path(self.build_lib) / "hoi_assets" / "_bundle" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(name, str(target))

    def get_source_files(self) -> list[str]:
        """What a source distribution holds."""
        return [*super().get_source_files(), *bundled_files()]


setup(cmdclass={"build_py": BuildWithBundle})
