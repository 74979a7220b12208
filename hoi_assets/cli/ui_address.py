"""Where the UI of a Dagster home listens, and that there is one of it: its daemon must be alone."""

import fcntl
import json
import os
import socket
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import writing

LOCK_FILE = "ui.lock"


@dataclass(frozen=True)
class Address:
    """Of a UI that runs, or ran last.

    Attributes:
        url: of Dagster's UI.
        pages_url: of Data Docs and reports.
        pid: the process to stop.
    """

    url: str
    pages_url: str
    pid: int


def claim(dagster_home: Path) -> None:
    """Become this home's only UI: until the process ends, also when it becomes another by exec.

    Raises:
        HoiError: a UI of this home runs already.
    """
    path = dagster_home / LOCK_FILE
    with writing(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        running = last_address(dagster_home)
        where = f" at {running.url} (process {running.pid})" if running else ""
        raise HoiError(
            f"the UI of {dagster_home} runs already{where}",
            "open it in the browser; or stop it first, with Ctrl+C in its terminal",
        ) from error
    os.set_inheritable(file, True)


def announce(dagster_home: Path, address: Address) -> None:
    """Write where the UI that this process becomes will listen."""
    path = dagster_home / LOCK_FILE
    with writing(path):
        path.write_text(json.dumps(asdict(address)), encoding="utf-8")


def last_address(dagster_home: Path) -> Address | None:
    """Where this home's UI listens or listened last; None where that is not known."""
    try:
        return Address(**json.loads((dagster_home / LOCK_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def check_free(host: str, port: int, option: str) -> None:
    """Check that a server can listen there.

    Args:
        option: of the command, which names another port.

    Raises:
        HoiError: another program listens there, or there is no such address on this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise HoiError(
            f"cannot listen on {host}, port {port}: {reason}",
            f"name a free port with {option}, or another address with --host",
        ) from error
