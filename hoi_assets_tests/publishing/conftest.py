"""A small line over two good categories, outputs in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets_tests.publishing.small_pipeline import GOOD, write_profile, write_taxonomy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `taxonomy/`, `small.yaml` and, once something ran, `home/`."""
    write_taxonomy(tmp_path / "taxonomy", {"hook": GOOD, "worn": GOOD})
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one
