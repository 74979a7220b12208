"""What is relied on beyond Dagster's public API, on the version it was tried with."""

import ast
from importlib.metadata import version

from hoi_assets.defs.dagster_private import TRIED_WITH
from hoi_assets.settings import ROOT


def test_the_installed_dagster_is_the_one_that_was_tried():
    """Where this fails: run hoi_assets_tests/defs, then raise TRIED_WITH."""
    assert version("dagster") == TRIED_WITH


def test_nothing_else_imports_dagsters_private_modules():
    users = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hoi_assets").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._")
    ]
    assert set(users) == {"hoi_assets/defs/dagster_private.py"}
