"""A head that does not answer is named before anything is computed; no cluster is needed."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets.cluster import connection
from hoi_assets.defs.project import load_project
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.errors import HoiError
from hoi_assets.settings import chosen_executor
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.conftest import CATEGORY
from hoi_assets_tests.pipeline_fixture import write_profile
from hoi_assets_tests.processes import free_port


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_head_that_does_not_answer_is_named_within_seconds(
    kind: str, scheme: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'hoi-assets[ray]'")
    address = scheme + request.getfixturevalue(kind)
    monkeypatch.setattr(connection, "ANSWER_S", 1.0)
    monkeypatch.setenv("RAY_ADDRESS", address)
    begin = time.monotonic()
    with pytest.raises(HoiError, match=f"{address}.*does not answer.*\n.*ray start --head"):
        connection.connect()
    assert time.monotonic() - begin < 60  # Ray would go on for minutes; this machine may be busy


def test_a_run_begins_nothing_where_the_head_does_not_answer(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_ray", reason="dagster-ray is not installed")
    monkeypatch.setenv("HOI_EXECUTOR", "ray")
    monkeypatch.setenv("RAY_ADDRESS", closed)
    project = load_project(str(write_profile(tmp_path)), tmp_path / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(HoiError, match="does not answer"):
            run_pipelines(project, instance, [CATEGORY], log=lambda line: None)
        assert not instance.get_runs()
    assert not Store(tmp_path / "home").all_current()


@pytest.mark.parametrize(
    "address", ["", "head", "head:port", "http://head:8265", "head:70000", "://"]
)
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(HoiError, match=r"RAY_ADDRESS is (not set|')"):
        connection.ray_address()


def test_an_unknown_executor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_EXECUTOR", "dask")
    with pytest.raises(HoiError, match=r"HOI_EXECUTOR is 'dask'\n.*in_process, ray"):
        chosen_executor()
