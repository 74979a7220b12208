"""What holds for all inputs, on a few that are always the same; `make prove` tries many."""

import pytest
from hypothesis.strategies import text

from hoi_assets_tests.properties import PROPERTIES, check
from hoi_assets_tests.properties.examples import for_all


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_whatever_the_input(name: str) -> None:
    check(name, max(5, PROPERTIES[name][1] // 2))


def test_each_seed_tries_other_examples() -> None:
    tried: list[str] = []

    @for_all(text())
    def seen(example: str) -> None:
        tried.append(example)

    PROPERTIES["seen"] = (seen, 20)
    try:
        for number in (1, 2, 1):
            check("seen", 20, number)
    finally:
        del PROPERTIES["seen"]
    first, second, again = tried[:20], tried[20:40], tried[40:]
    assert first == again != second
