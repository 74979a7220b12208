"""What runs out or goes away: disk, permission, memory, clock, network; and memory stays flat.

Each trial ends in a message (or in success), leaves nothing half published, and goes on afterwards
to the content that an untroubled home has.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from hoi_assets.settings import ROOT
from hoi_assets_tests.llm.chat_server import Answer, Server
from hoi_assets_tests.processes import obey_permissions, set_writable
from proofs import limits
from proofs.campaign import Campaign, Trial
from proofs.children import FEW, Child, preload, start
from proofs.homes import Content, content_of, fault_of
from proofs.rewriting import KEY, PROMPTS, accepted, rewrite
from proofs.small_work import fault_of_votes, told_small_work

TRIALS = 42
YEARS_S = 10 * 365 * 24 * 3600
LARGE_KIB = 256 * 1024
PATIENCE_S = 300.0
# A stage that streams holds a batch, whatever the number of pictures.
FEW_PICTURES, MANY_TIMES, MOST_RATIO = 100, 10, 1.2
# What a native library may die of where its allocation fails; nobody can say anything then.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
MEMORY_WORDS = ("memory", "alloc", "Resource temporarily unavailable", "can't start new thread")


@dataclass(frozen=True)
class Setting:
    """What the trials share: a folder, chance, and what an untroubled home holds."""

    folder: Path
    chance: np.random.Generator
    expected: Content

    def home(self, name: str) -> Path:
        """A fresh place for a home."""
        return self.folder / f"{name}-{len(list(self.folder.iterdir()))}" / "home"

    def end(self, home: Path) -> str:
        """Work without trouble on a home and compare; why it is not as it should be."""
        child = start(told_small_work, (home,), home.parent / "again.log")
        if child.wait(PATIENCE_S):
            return f"does not go on: {child.printed[-300:]}"
        return fault_of(home, self.expected) or fault_of_votes(home)


def _trouble(child: Child, words: tuple[str, ...]) -> str:
    """Why the end of a troubled process is not clear; empty where it is."""
    code = child.wait(PATIENCE_S)
    if code == 0 or (words is MEMORY_WORDS and -code in CRASHES):
        return ""
    printed = child.printed
    if "Traceback" in printed and words is not MEMORY_WORDS:
        return f"a traceback: {printed[-300:]}"
    return "" if any(word in printed for word in words) else f"no clear message: {printed[-300:]}"


def _full_disk(setting: Setting) -> Trial:
    """A file system too small for the work; where none can be mounted, a limit on each file."""
    home = setting.home("disk")
    home.parent.mkdir()
    size_kib = int(setting.chance.integers(16, 1500))
    mounted = limits.mount_tmpfs(home.parent, size_kib)
    limit = None if mounted else partial(limits.limit_files, size_kib * 1024 // 8)
    name = f"disk of {size_kib} KiB" if mounted else f"files of {size_kib // 8} KiB"
    log = setting.folder / f"{home.parent.name}.log"
    try:
        child = start(told_small_work, (home,), log, limit=limit)
        fault = _trouble(child, ("disk full",))
        if mounted:
            limits.grow_tmpfs(home.parent, LARGE_KIB)
        fault = fault or setting.end(home)
        said = "full" if child.process.exitcode else "large enough"
        return Trial(f"{name} ({said})", fault)
    finally:
        if mounted:
            limits.unmount(home.parent)


def _read_only(setting: Setting) -> Trial:
    """A folder of the home, or all of it, that may not be written any more."""
    home = setting.home("read-only")
    home.parent.mkdir()
    fault = setting.end(home)
    parts = [home, *sorted(path for path in home.iterdir() if path.is_dir())]
    part = parts[int(setting.chance.integers(len(parts)))]
    shutil.rmtree(home / "assets" / "pictures")
    set_writable(part, False)
    log = home.parent / "refused.log"
    try:
        child = start(told_small_work, (home,), log, limit=obey_permissions)
        words = ("cannot be written", "cannot write", "is read-only")
        fault = fault or _trouble(child, words)
    finally:
        set_writable(part, True)
    where = "the home" if part == home else part.name
    return Trial(f"{where} read-only", fault or setting.end(home))


def _memory(setting: Setting) -> Trial:
    """An address space with little room left."""
    home = setting.home("memory")
    home.parent.mkdir()
    mib = int(setting.chance.integers(1, 160))
    log = home.parent / "memory.log"
    child = start(told_small_work, (home,), log, limit=partial(limits.limit_memory, mib))
    # Rust and C++ libraries end the process themselves, with a line of their own.
    fault = _trouble(child, MEMORY_WORDS)
    return Trial(f"{mib} MiB of memory left", fault or setting.end(home))


def _clock(setting: Setting) -> Trial:
    """All times that a home holds lie ten years ahead or behind, as after the clock was set."""
    home = setting.home("clock")
    home.parent.mkdir()
    fault = setting.end(home)
    ahead = bool(setting.chance.integers(2))
    stamp = time.time() + (YEARS_S if ahead else -YEARS_S)
    text = f"{2099 if ahead else 2001}-01-02T03:04:05.000000+00:00"
    (home / "staging" / "0123456789abcdef.tmp").write_bytes(b"of another release")
    connection = sqlite3.connect(home / "ledger.sqlite")
    connection.execute("UPDATE made SET made_at = ?", (text,))
    connection.execute("UPDATE rows SET updated_at = ?", (text,))
    connection.commit()
    connection.close()
    for path in home.rglob("*"):
        os.utime(path, (stamp, stamp))
    direction = "ahead" if ahead else "behind"
    return Trial(f"stored times ten years {direction}", fault or setting.end(home))


def _network(setting: Setting) -> Trial:
    """An endpoint that disappears after some answers, and comes back."""
    home = setting.home("network")
    home.parent.mkdir()
    answers = int(setting.chance.integers(0, PROMPTS))
    server = Server(lambda request, number: Answer(accepted(request)))
    port = server.http.server_port
    server.behaviour = lambda request, number: (
        Answer(accepted(request)) if number < answers else Answer(cut=True)
    )
    log = home.parent / "calls.log"
    if answers == 0:
        server.close()
    child = start(rewrite, (home, server.url), log, KEY)
    fault = _trouble(child, ("rewriter.endpoint", "failed: ["))
    if answers:
        server.close()
    again = Server(lambda request, number: Answer(accepted(request)), port=port)
    try:
        second = start(rewrite, (home, again.url), log, KEY)
        if second.wait(PATIENCE_S):
            fault = fault or f"does not go on: {second.printed[-300:]}"
        if len(again.requests) + answers != PROMPTS:
            fault = fault or f"{len(again.requests)} requests after {answers} answers"
    finally:
        again.close()
    return Trial(f"network gone after {answers} of {PROMPTS} answers", fault)


def _flapping(setting: Setting) -> Trial:
    """An endpoint of which most answers are none."""
    home = setting.home("flapping")
    home.parent.mkdir()
    seed = int(setting.chance.integers(1_000_000))
    answered = 0

    def behave(request: dict[str, object], number: int) -> Answer:
        nonlocal answered
        kind = np.random.default_rng([seed, number]).integers(6)
        if kind < 2:
            answered += 1
            return Answer(accepted(request))
        if kind == 2:
            return Answer(status=503, body="{}")
        if kind == 3:
            return Answer(status=429, body="{}", headers={"Retry-After": "0.05"})
        return Answer(cut=True) if kind == 4 else Answer("I would rather not say.")

    server = Server(behave)
    log = home.parent / "calls.log"
    fault, runs, code = "", 0, 1
    try:
        while code and runs < 30:
            child = start(rewrite, (home, server.url), log, KEY)
            code, runs = child.wait(PATIENCE_S), runs + 1
            fault = fault or _trouble(child, ("rewriter.endpoint", "failed: ["))
        fault = fault or ("no end" if code else "")
    finally:
        server.close()
    if answered != PROMPTS:
        fault = fault or f"{answered} answers to {PROMPTS} prompts"
    return Trial(f"flapping endpoint, {len(server.requests)} requests, {runs} runs", fault)


def _flat(setting: Setting) -> Trial:
    """Peak memory of a process that draws, compares and packages pictures, or queries them."""
    peaks = []
    for pictures in (FEW_PICTURES, FEW_PICTURES * MANY_TIMES):
        home = setting.home("flat")
        command = [sys.executable, "-m", "proofs.streaming", str(home), str(pictures)]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=600)
        shutil.rmtree(home, ignore_errors=True)
        if done.returncode:
            return Trial("memory flat", done.stderr[-400:])
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    ratios = {name: peaks[1][name] / peaks[0][name] for name in peaks[0]}
    told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    name = f"peak memory, {MANY_TIMES}x pictures: {told}"
    over = [stage for stage, ratio in ratios.items() if ratio > MOST_RATIO]
    return Trial(name, f"not flat: {', '.join(over)} ({told})" if over else "")


KINDS: tuple[Callable[[Setting], Trial], ...] = (
    *(_full_disk, _read_only, _clock, _network, _flapping, _memory),
)


def _run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    preload(*FEW, "proofs.resources")
    folder = folder.resolve()
    whole = folder / "whole" / "home"
    whole.parent.mkdir()
    child = start(told_small_work, (whole,), whole.parent / "log")
    if child.wait(PATIENCE_S):
        raise RuntimeError(child.printed[-1000:])
    setting = Setting(folder, np.random.default_rng(seed), content_of(whole))
    wanted = TRIALS if trials is None else trials
    flat = int(wanted > len(KINDS))
    yield from (kind(setting) for kind in islice(cycle(KINDS), wanted - flat))
    if flat:
        yield _flat(setting)


CAMPAIGN = Campaign(
    "resources",
    "disk, permission, memory, clock and network may go: a clear message, nothing half published, "
    "and on it goes; memory stays flat",
    _run,
)
