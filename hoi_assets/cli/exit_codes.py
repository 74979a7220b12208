"""The exit codes of `hoi`: scripts may rely on them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended.

    Attributes:
        OK: all well.
        PROBLEM: the command did its work and found a problem: a blocked partition (run), pixels
            that differ (replay), bad rows (interacting check), no picture scored (score).
        USER_ERROR: a `HoiError`, or wrong usage of the command line.
        INTERRUPTED: Ctrl+C, as shells have it: 128 plus the number of SIGINT.
    """

    OK = 0
    PROBLEM = 1
    USER_ERROR = 2
    INTERRUPTED = 130


# Paragraphs, as typer joins the lines of one.
EPILOGUE = "\n\n".join(
    (
        "Exit codes:",
        f"  {ExitCode.OK:>3}  success",
        f"  {ExitCode.PROBLEM:>3}  problem found: a partition is blocked, pixels differ, or rows "
        "are bad",
        f"  {ExitCode.USER_ERROR:>3}  user error: wrong usage or input; stderr says what to do",
        f"  {ExitCode.INTERRUPTED:>3}  interrupted; run again to resume",
    )
)
