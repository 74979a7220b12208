"""Work in processes of its own, which can be made to die at a chosen instant.

The processes are forked from a server that has imported the heavy libraries, since importing costs
more than most of what is tried. An audit hook (PEP 578) and SQLite's trace callback watch what they
do to files and databases, and send SIGKILL before the nth of it; nothing is simulated.
"""

import multiprocessing
import os
import re
import signal
import sqlite3
import sqlite3.dbapi2
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hoi_assets.settings import ROOT

# What the small work imports; the pipelines import the others too.
FEW = ("polars", "duckdb", "numpy", "PIL.Image", "torch._dynamo", "safetensors.torch")
MANY = (
    *("hoi_assets.cli.main", "hoi_assets.definitions", "dagster", "great_expectations", "openai"),
    *("matplotlib.pyplot", "diffusers", "transformers", "accelerate", "peft", "datasets"),
)
PATIENCE_S = 1500.0
LINE = 160
_SERVER = multiprocessing.get_context("forkserver")
_CHANGES = frozenset(
    {
        "shutil.rmtree",
        "os.rename",
        "os.link",
        "os.symlink",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.truncate",
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR
_READING_SQL = ("SELECT", "PRAGMA", "BEGIN")


@dataclass(frozen=True)
class Instant:
    """Before the nth change that matches.

    Attributes:
        name: for people, e.g. "pointer not moved yet".
        pattern: regular expression for a line such as "os.rename FROM TO", "open PATH" (to write)
            or "sql INSERT INTO …"; the paths are those that the process gave.
    """

    name: str
    pattern: str
    nth: int = 1


@dataclass(frozen=True)
class Child:
    """A process that was started, and the file with what it printed."""

    process: BaseProcess
    log: Path

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """The exit code; negative where a signal ended the process.

        Raises:
            TimeoutError: it did not end; it is killed then.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"no end after {seconds:.0f} s: {self.printed[-500:]}")
        return self.process.exitcode

    def kill_after(self, seconds: float) -> int:
        """Send SIGKILL after so many seconds, unless it ends before; the exit code."""
        self.process.join(seconds)
        return self.kill()

    def kill(self) -> int:
        """Send SIGKILL; the exit code."""
        self.process.kill()
        self.process.join()
        return int(self.process.exitcode or 0)

    @property
    def printed(self) -> str:
        """What it printed so far, errors included."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def preload(*libraries: str) -> None:
    """Name what is imported before the first process is started; later calls do nothing."""
    _SERVER.set_forkserver_preload(list(libraries))


def start(
    target: Callable[..., Any],
    arguments: Sequence[Any],
    log: Path,
    environment: Mapping[str, str] | None = None,
    instant: Instant | None = None,
    listed: Path | None = None,
    limit: Callable[[], None] | None = None,
) -> Child:
    """Start a function of a module in a process of its own.

    Args:
        log: takes what it prints; appended to.
        environment: variables on top of this process's; an empty value removes one.
        instant: when it dies.
        listed: where it writes the changes that it made, a line each.
        limit: called first in the process, e.g. to limit its memory.
    """
    whole = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    whole = {name: value for name, value in whole.items() if value}
    process = _SERVER.Process(
        target=_run, args=(target, arguments, str(log), whole, instant, listed, limit)
    )
    process.start()
    return Child(process, log)


def hoi(arguments: Sequence[str]) -> None:
    """The command `hoi`."""
    from hoi_assets.cli.main import main

    sys.exit(int(main(list(arguments))))


def start_hoi(
    home: Path,
    profile: Path | str,
    arguments: Sequence[str],
    log: Path,
    instant: Instant | None = None,
    limit: Callable[[], None] | None = None,
    **variables: str,
) -> Child:
    """Start the command `hoi` on a home; `variables` are further ones of the environment."""
    environment = {"HOI_HOME": str(home), "HOI_PROFILE": str(profile), "DAGSTER_HOME": ""}
    environment |= variables
    return start(hoi, (list(arguments),), log, environment, instant, limit=limit)


def _run(
    target: Callable[..., Any],
    arguments: Sequence[Any],
    log: str,
    environment: Mapping[str, str],
    instant: Instant | None,
    listed: Path | None,
    limit: Callable[[], None] | None,
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    if limit is not None:
        limit()
    changes = watch(instant) if instant is not None or listed is not None else []
    target(*arguments)
    if listed is not None:
        lines = (" ".join(change.split())[:LINE] for change in changes)
        listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def watch(instant: Instant | None) -> list[str]:
    """List this process's changes from now on, and kill it at the instant."""
    changes: list[str] = []
    pattern = re.compile(instant.pattern, re.DOTALL) if instant is not None else None
    hits = 0

    def happened(change: str) -> None:
        nonlocal hits
        changes.append(change)
        if pattern is not None and instant is not None and pattern.search(change):
            hits += 1
            if hits == instant.nth:
                os.kill(os.getpid(), signal.SIGKILL)

    def statement(text: str) -> None:
        if not text.lstrip().startswith(_READING_SQL):
            happened(f"sql {text.lstrip()}")

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            happened(" ".join([event, *(str(one) for one in arguments[:2])]))
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            happened(f"open {arguments[0]}")

    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statement)
        return connection

    sys.addaudithook(audit)
    # The event of a new connection comes too early to set its callback.
    sqlite3.connect = sqlite3.dbapi2.connect = traced
    return changes
