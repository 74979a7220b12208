"""Pages of the home: Data Docs and reports are served, nothing else."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hoi_assets.cli.pages import pages_app
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.damage import damage


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "a home"
    for name in (
        "data_docs/index.html",
        "data_docs/expectations/rows.html",
        "assets/verifier/_/versions/abc/summary.parquet",
        "dagster/history/runs.db",
    ):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    (home / "data_docs" / "out.html").symlink_to(home / "dagster" / "history" / "runs.db")
    return home


def published_report(home: Path) -> Path:
    store = Store(home)
    with store.stage("evaluation_report") as staging:
        staging.write_text("report.html", "<h1>Scores</h1>")
        return store.publish(staging, {}, None).file("report.html")


def test_damaged_report_is_not_served(home: Path) -> None:
    report = published_report(home)
    damage(report)
    answer = TestClient(pages_app(home)).get(f"/{report.relative_to(home)}")
    assert answer.status_code == 500
    assert "report.html is not the file that was written" in answer.text


def test_data_docs_and_reports_are_served_and_nothing_else(home: Path) -> None:
    client = TestClient(pages_app(home))
    assert "Nothing has been validated yet" in client.get("/").text  # the index is built on demand
    assert client.get("/data_docs/expectations/rows.html").status_code == 200
    report = published_report(home)
    assert client.get(f"/{report.relative_to(home)}").text == "<h1>Scores</h1>"
    for hidden in (
        "assets/verifier/_/versions/abc/summary.parquet",
        "dagster/history/runs.db",
        "data_docs/../dagster/history/runs.db",
        "data_docs/%2e%2e/dagster/history/runs.db",
        "data_docs/out.html",
        "etc/passwd",
        "data_docs/absent.html",
    ):
        assert client.get(f"/{hidden}").status_code == 404, hidden


def test_server_ends_with_the_process_that_started_it(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'hoi_assets.cli.pages', {str(home)!r}, "
        f"'127.0.0.1', '{port}'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}/data_docs/index.html"
    try:
        wait_for(lambda: answers(url))
    finally:
        starter.kill()
        starter.wait()
    wait_for(lambda: not answers(url))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
