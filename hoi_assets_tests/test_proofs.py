"""Each campaign of `make prove` runs and loses nothing; a few trials of each."""

import importlib
from pathlib import Path

import pytest

# Campaign: how many trials.
FEW = {"properties": 6, "hostile": 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_campaign_loses_nothing(name: str, tmp_path: Path) -> None:
    campaign = importlib.import_module(f"proofs.{name}").CAMPAIGN
    trials = list(campaign.run(tmp_path, 0, FEW[name]))
    assert len(trials) == FEW[name]
    assert [f"{one.name}: {one.fault}" for one in trials if one.fault] == []
