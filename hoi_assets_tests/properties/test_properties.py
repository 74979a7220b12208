"""What holds for all inputs, on a few that are always the same; `make prove` tries many."""

import pytest

from hoi_assets_tests.properties import PROPERTIES, check


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_whatever_the_input(name: str) -> None:
    check(name, max(5, PROPERTIES[name][1] // 2))
