"""Services of `deploy/docker-compose.yaml` on loopback: their commands and variables as the file
has them, with other ports, hosts and folders in place of the containers'."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.settings import ROOT
from hoi_assets_tests.processes import free_port
from hoi_assets_tests.ui_process import end_session

DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
# Services that are processes of ours, and their ports.
OWN_PORTS = {"code": "4000", "webserver": "3000", "pages": "3001", "ray-head": "6379"}
# Two nodes of Ray on one machine need ports of their own, which two containers have.
RAY_PORTS = ("--dashboard-agent-listen-port", "--dashboard-port", "--ray-client-server-port")
PATIENCE_S = 300.0


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of a compose file with `${NAME}`, `${NAME:-default}` and `${NAME:?}` filled in.

    Raises:
        KeyError: a variable that must be set is not.
    """
    if isinstance(value, dict):
        return {name: interpolated(one, variables) for name, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name, rule, default = match.groups()
        given = variables.get(name)
        if given is None or (given == "" and rule and rule.startswith(":")):
            if rule is None or rule.endswith("?"):
                raise KeyError(name)
            return default
        return given

    return VARIABLE.sub(found, value)


class Stack:
    """The services of ours, each started by `start`.

    Args:
        folder: for what the containers have below `/var/lib/hoi`, and for logs.
        variables: of `.env`.
        ports: of servers that run already, by the port in the compose file.
    """

    def __init__(
        self, folder: Path, variables: Mapping[str, str], ports: Mapping[str, int]
    ) -> None:
        text = (DEPLOY / "docker-compose.yaml").read_text(encoding="utf-8")
        self.services = interpolated(yaml.safe_load(text), variables)["services"]
        self.folder = folder
        self.ports = {**{port: free_port() for port in OWN_PORTS.values()}, **ports}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
        (fixed,) = re.findall(r"^ENV (.*)$", image, re.MULTILINE)
        self._fixed = dict(one.split("=", 1) for one in fixed.split())
        (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.MULTILINE)
        self._entrypoint: list[str] = yaml.safe_load(entrypoint)
        (folder / "opt").mkdir()
        for path in (DEPLOY / "entrypoint.py", DEPLOY / "workspace.yaml"):
            here = self._here(path.read_text(encoding="utf-8"))
            (folder / "opt" / path.name).write_text(
                re.sub("host: code", "host: 127.0.0.1", here), encoding="utf-8"
            )

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        """Start a service."""
        service = self.services[name]
        command = [self._here(str(word)) for word in (*self._entrypoint, *service["command"])]
        command[0] = sys.executable
        if name.startswith("ray-"):
            options = RAY_PORTS if name == "ray-head" else RAY_PORTS[:1]
            command += [word for option in options for word in (option, str(free_port()))]
        own = {**self._fixed, "DAGSTER_HOME": f"/var/lib/hoi/{name}/dagster"}
        variables = {
            key: self._here(value) for key, value in (own | service["environment"]).items()
        }
        inherited = {key: os.environ[key] for key in ("HOME", "LANG", "TZ") if key in os.environ}
        (self.folder / name).mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder / name,
                env={
                    **inherited,
                    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                    "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
                    "OMP_NUM_THREADS": "1",
                    **variables,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def run(self, name: str) -> str:
        """Run a service that ends, and return what it printed."""
        code = self.start(name).wait(PATIENCE_S)
        printed = self.log(name).read_text(encoding="utf-8", errors="replace")
        assert code == 0, printed
        return printed

    def healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        command = [self._here(str(word)) for word in self.services[name]["healthcheck"]["test"][1:]]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True)
        return done.returncode == 0

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until something holds, while services run; one that ends is started again, as the
        file's `restart` has it."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            for name, process in list(self._processes.items()):
                if process.poll() and self.services[name]["restart"] == "unless-stopped":
                    self.start(name)
            assert time.monotonic() < deadline, self.told()
            time.sleep(1)

    def told(self) -> str:
        """The ends of all logs."""
        logs = {name: self.log(name).read_text("utf-8", "replace") for name in self._processes}
        return "\n\n".join(f"{name}:\n{text[-2500:]}" for name, text in logs.items())

    def log(self, name: str) -> Path:
        """What a service printed."""
        return self.folder / f"{name}.log"

    def close(self) -> None:
        """End all services, the last one first."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                end_session(process)

    def _here(self, text: str) -> str:
        """A text of the compose file as it holds on this machine."""
        for port, own in self.ports.items():
            text = re.sub(rf"(?:[a-z-]+:)\b{port}\b", f"127.0.0.1:{own}", text)
            text = re.sub(rf"\b{port}\b", str(own), text)
        if text == "/data":
            return str(ROOT / "data")
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/opt/hoi/", f"{self.folder}/opt/")
        return text.replace("/var/lib/hoi", str(self.folder))


@contextmanager
def stack(folder: Path, variables: Mapping[str, str], ports: Mapping[str, int]) -> Iterator[Stack]:
    """Ends what was started."""
    made = Stack(folder, variables, ports)
    try:
        yield made
    finally:
        made.close()
