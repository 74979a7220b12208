"""Trials that must end quickly and in flat memory."""

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from proofs.campaign import Trial

MIB = 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Attack:
    """One hostile input.

    Attributes:
        run: given an empty folder, tries it; returns what came of it that must not, else "".
        seconds: of CPU it may take at most.
        mib: by how much memory may grow at most.
    """

    name: str
    run: Callable[[Path], str]
    seconds: float = 20
    mib: int = 400


def attempt(attack: Attack, folder: Path) -> Trial:
    """Run one attack within its bounds; an exception is a fault."""
    folder.mkdir(parents=True)
    before, start = _reset_peak(), time.process_time()
    try:
        # Wall-clock time; the machine may be busy with other work.
        with alarm(20 * attack.seconds):
            fault = attack.run(folder)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    grown, took = _peak() - before, time.process_time() - start
    if not fault and grown > attack.mib * MIB:
        fault = f"memory grew by {grown // MIB} MiB"
    if not fault and took > attack.seconds:
        fault = f"took {took:.0f} s"
    return Trial(attack.name, " ".join(fault.split())[:500])


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """TimeoutError in this thread after so long."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end within {seconds:.0f} s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _reset_peak() -> int:
    """Where the kernel can, the peak begins anew; the memory in use, in bytes."""
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _peak()


def _peak() -> int:
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = [x for x in STATUS.read_text(encoding="ascii").splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
