"""SIGKILL in both pipelines: killed and run again until nothing is left to do, then compared."""

import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

import numpy as np

from proofs.campaign import Trial
from proofs.children import Child, Instant, start
from proofs.homes import Content, content_of, fault_of
from proofs.pipelines import (
    BATCH,
    CONCURRENCY,
    PIPELINES,
    endpoint,
    run_pipeline,
    small_profile,
    twice,
)
from proofs.rewriting import KEY

# In the order of a run; each with the most times that it is let pass before.
PUBLISHING = (
    ("staged, not audited", r"^open .*/data_docs/", 6),
    ("audited, evidence not written", r"^os\.rename .*/gates/.*[0-9a-f]{16}\.json$", 6),
    ("evidence written, no manifest", r"^os\.rename .*/manifests/", 6),
    ("manifest written, version not moved", r"^os\.rename .*/versions/[0-9a-f]{16}$", 6),
    ("version moved, not logged", r"^open .*/publications\.jsonl$", 6),
    ("logged, not in force", r"^os\.rename .*/current\.json$", 6),
    ("in force, rows not in the ledger", r"^sql INSERT INTO rows", 9),
    ("in Dagster's event log", r"^sql INSERT INTO event_logs", 60),
    ("in the state of a run", r"^sql UPDATE runs", 6),
)
INSTANTS = {
    "ppv": (
        ("home not named", r"^os\.link .*home\.json$", 1),
        *PUBLISHING,
        ("pictures drawn, one not stored", r"^os\.rename .*/images/", 12),
        ("pictures stored, not in the ledger", r"^sql INSERT INTO made .*'image'", 6),
        ("checkpoint half written", r"^open .*/unfinished-.*state\.json$", 2),
        ("checkpoint written, not moved", r"^os\.rename .*/checkpoint-\d+$", 2),
        ("old checkpoint half removed", r"^os\.remove best\.safetensors", 1),
        ("trained, not stored", r"^os\.rename .*/training/.*/trained/", 2),
        ("trained and stored, not tidied", r"^shutil\.rmtree .*/training/\w+/\w+$", 2),
        ("dataset written, not its card", r"^open .*/staging/hoi_dataset.*README\.md$", 1),
        ("index of Data Docs", r"^os\.rename .*/data_docs/index\.html$", 1),
    ),
    "detailscribe": (
        *PUBLISHING,
        ("latents not stored", r"^(os\.rename|open) .*/latents/", 2),
        ("pictures drawn, one not stored", r"^os\.rename .*/images/", 12),
        ("pictures stored, not in the ledger", r"^sql INSERT INTO made .*'image'", 6),
        ("answer of the critic", r"^sql INSERT INTO made .*'answer'", 3),
        ("reply of the rewriter", r"^sql INSERT INTO made .*'rewriting'", 2),
        ("reply of the judge", r"^sql INSERT INTO made .*'rating'", 6),
        ("score of a metric", r"^sql INSERT INTO made .*'score'", 3),
    ),
}
# Earliest and latest share of an unbroken run after which a kill at random comes.
RANDOM_SHARES = (0.02, 0.7)


@dataclass(frozen=True)
class Reference:
    """An unbroken run."""

    profile: Path
    content: Content
    seconds: float
    twice: int


class Line:
    """The trials of one pipeline.

    Args:
        folder: of its own.
    """

    def __init__(self, name: str, folder: Path, chance: np.random.Generator) -> None:
        self.name, self.folder, self.chance = name, folder, chance
        folder.mkdir(parents=True)

    def trials(self, kills: int) -> Iterator[Trial]:
        """So many kills, over as many homes as it takes."""
        with endpoint() as calls:
            profile = small_profile(self.folder, calls.server.url)
            reference = self._unbroken(profile)
            asked_twice = calls.twice()
            chosen = cycle(INSTANTS[self.name])
            done = 0
            for number in count():
                calls.asked.clear()
                home = self.folder / f"home-{number}"
                names = []
                for name, code in self._kills(home, reference, chosen, kills - done):
                    if code != -signal.SIGKILL:
                        yield Trial(name, f"ended with {code}: {self._log(home)[-400:]}")
                        return
                    names.append(name)
                fault = self._fault(home, reference, len(names))
                again = calls.twice() - asked_twice - len(names) * CONCURRENCY
                if again > 0 and not fault:
                    fault = f"{again} replies requested twice"
                yield from (Trial(name) for name in names[:-1])
                if names:
                    whole = f"{names[-1]}, the last of {len(names)} in one home"
                    yield Trial(names[-1], f"{whole}: {fault}" if fault else "")
                done += len(names)
                if done >= kills or fault:
                    return

    def _unbroken(self, profile: Path) -> Reference:
        home, start_s = self.folder / "unbroken", time.monotonic()
        if self._start(home, profile, None).wait():
            raise RuntimeError(f"the unbroken run failed: {self._log(home)[-1000:]}")
        seconds = time.monotonic() - start_s
        return Reference(profile, content_of(home), seconds, twice(self._noted(home)))

    def _kills(
        self, home: Path, reference: Reference, chosen: Iterator[tuple[str, str, int]], most: int
    ) -> Iterator[tuple[str, int]]:
        """Run until nothing kills the run any more; what killed it and the exit codes."""
        for number in range(most):
            name, code = self._killed(home, reference, chosen, at_random=number % 2 == 1)
            if code == 0:
                return
            yield f"{self.name}: {name}", code
        if self._start(home, reference.profile, None).wait():
            yield f"{self.name}: resumed", 1

    def _killed(
        self,
        home: Path,
        reference: Reference,
        chosen: Iterator[tuple[str, str, int]],
        at_random: bool,
    ) -> tuple[str, int]:
        if at_random:
            seconds = self.chance.uniform(*RANDOM_SHARES) * reference.seconds
            child = self._start(home, reference.profile, None)
            return f"SIGKILL after {seconds:.1f} s", child.kill_after(seconds)
        name, pattern, most = next(chosen)
        instant = Instant(name, pattern, int(self.chance.integers(1, most + 1)))
        return f"{name} ({instant.nth})", self._start(home, reference.profile, instant).wait()

    def _start(self, home: Path, profile: Path, instant: Instant | None) -> Child:
        environment = {
            "HOI_HOME": str(home),
            "HOI_PROFILE": str(profile),
            "DAGSTER_HOME": "",
            **KEY,
        }
        arguments = (["run", PIPELINES[self.name]], self._noted(home))
        log = home.with_suffix(".log")
        return start(run_pipeline, arguments, log, environment, instant)

    def _fault(self, home: Path, reference: Reference, kills: int) -> str:
        again = twice(self._noted(home)) - reference.twice - kills * BATCH
        if again > 0:
            return f"{again} pictures drawn twice"
        return fault_of(home, reference.content)

    def _noted(self, home: Path) -> Path:
        return home.with_suffix(".drawn")

    def _log(self, home: Path) -> str:
        return home.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


def pipeline_trials(folder: Path, seed: int, kills: int) -> Iterator[Trial]:
    """Kills shared by both pipelines, which run side by side."""
    found: queue.Queue[Trial | None] = queue.Queue()
    lines = [
        Line(name, folder / name, np.random.default_rng([seed, number]))
        for number, name in enumerate(PIPELINES)
    ]
    shares = [kills - kills // 2, kills // 2]

    def make(line: Line, own: int) -> None:
        try:
            for trial in line.trials(own):
                found.put(trial)
        except Exception as error:
            found.put(Trial(line.name, f"broke off: {type(error).__name__}: {error}"))
        found.put(None)

    pairs: Sequence[tuple[Line, int]] = [
        (line, own) for line, own in zip(lines, shares, strict=True) if own
    ]
    for pair in pairs:
        threading.Thread(target=make, args=pair, daemon=True).start()
    running = len(pairs)
    while running:
        trial = found.get()
        if trial is None:
            running -= 1
        else:
            yield trial
