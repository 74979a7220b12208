"""`hoi ui` in a process of its own, for tests that look at it."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hoi_assets.settings import ROOT
from hoi_assets_tests.pipeline_fixture import environment
from hoi_assets_tests.processes import free_port

START_S = 180


@contextmanager
def running_ui(home: Path, profile: Path) -> Iterator[str]:
    """Address of Dagster's UI; beside it the daemon, as `make ui` starts them, on free ports."""
    port, pages_port = free_port(), free_port()
    log = home.with_name("ui.log")
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hoi_assets.cli", "ui"),
                *("--port", str(port), "--pages-port", str(pages_port)),
            ],
            cwd=ROOT,
            env=environment(home, profile),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/server_info", process, log)
        yield address
    finally:
        end_session(process)


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server of the process answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer:\n{log.read_text(encoding='utf-8')}")


def end_session(process: "subprocess.Popen[bytes]") -> None:
    """End a process that began a session, and what it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        # Dagster interrupts its children; started in the background, they do not hear it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
