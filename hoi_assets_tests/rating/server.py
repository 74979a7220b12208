"""The rating page in a process of its own, to be killed."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

START_S = 90
SERVE = "import sys; from pathlib import Path; from hoi_assets.rating.page import serve; " + (
    "serve(Path(sys.argv[1]), port=int(sys.argv[2]))"
)


class Server:
    """The page in a process of its own, always on the same port.

    Args:
        command: what serves the study; the port is appended. None: `serve` of `folder`.
    """

    def __init__(self, folder: Path, command: Sequence[str] | None = None) -> None:
        self.command = command or (sys.executable, "-c", SERVE, str(folder))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([*self.command, str(self.port)])
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/page.css", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise AssertionError("the rating page did not start")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)
