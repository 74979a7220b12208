"""Examples in docstrings run, and show what the code does; those marked +SKIP do not run."""

import doctest
import importlib
from pathlib import Path

import pytest

import hoi_assets

PACKAGE = Path(hoi_assets.__file__).parent
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules_with_examples() -> list[str]:
    """Names of the modules with an example; only these are imported, so that this is quick."""
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_hold(name: str):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hoi_assets"):
            raise
        pytest.skip(f"{error.name} is not installed: it comes with an extra")
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0


def test_a_wrong_example_is_noticed():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    assert runner.run(wrong, out=lambda _: None).failed == 1
