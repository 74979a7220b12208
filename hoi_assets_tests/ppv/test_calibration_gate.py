"""The gate says whether the verifier learns from people's labels or from renders alone."""

import polars as pl
import pytest

from hoi_assets.defs.ppv.verification import TRAINING_PAIRS_SUITE
from hoi_assets.ppv.manual_labels import LABELLED
from hoi_assets.publishing.expectations import resolve
from hoi_assets.publishing.validation import evaluate
from hoi_assets.settings import load_settings

pytestmark = pytest.mark.slow

NAME = "calibrated_on_your_pictures"


@pytest.mark.parametrize(
    ("profile", "shown_as", "warned"),
    [
        ("full", ["render", "vae", "renoised"], True),
        ("full", [LABELLED, "render"], True),
        ("full", [LABELLED, LABELLED], False),
        ("tiny", ["render", "vae"], False),
    ],
)
def test_renders_in_place_of_labels_are_a_warning_of_the_full_profile(
    profile: str, shown_as: list[str], warned: bool
) -> None:
    declared = [one for one in TRAINING_PAIRS_SUITE if NAME in str(one.as_json())]
    assert len(declared) == 1
    table = pl.DataFrame({"shown_as": shown_as})
    gate = evaluate({"rows": table}, resolve(declared, load_settings(profile)))
    assert gate.passed and bool(gate.broken) == warned
    assert (NAME in gate.markdown()) and ("warning" in gate.markdown()) == warned
