"""What the documentation points at is there."""

import ast
import re

from hoi_assets.settings import ROOT

TESTS = ROOT / "hoi_assets_tests"
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_test_that_a_page_names_exists() -> None:
    named = {
        match.groups()
        for page in (ROOT / "docs").glob("*.md")
        for match in NAMED_TEST.finditer(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    functions = {path: _functions(path) for path, _ in named}
    assert [(path, name) for path, name in sorted(named) if name not in functions[path]] == []


def _functions(path: str) -> set[str]:
    file = TESTS / path
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
