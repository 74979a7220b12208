"""The command line, `hoi`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.exceptions import TyperException

from hoi_assets.cli import (
    catalogue,
    development,
    export,
    images,
    interacting,
    ledger,
    models,
    preflight,
    rate,
    run,
    score,
)
from hoi_assets.cli.exit_codes import EPILOGUE, ExitCode
from hoi_assets.cli.output import warn
from hoi_assets.errors import HoiError

PROGRAM = "hoi"

OUT_OF_MEMORY = (
    "out of memory",
    "close other programs, or lower the batch sizes and model_budget_gb of the profile, then run "
    "again: finished work is not done twice",
)

app = typer.Typer(
    name=PROGRAM,
    help="Verified image data of hand-object interactions: run the pipelines, look at what they "
    "made, ask why, and take the results away.",
    epilog=EPILOGUE,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    # The interpreter's own traceback: rich's would show local variables, and so keys of endpoints.
    pretty_exceptions_enable=False,
)
for commands in (run, preflight, images, catalogue, score, development):
    app.add_typer(commands.commands)
app.add_typer(interacting.commands, name="interacting", rich_help_panel=score.PANEL)
app.add_typer(export.commands, name="export", rich_help_panel=export.PANEL)
app.add_typer(ledger.commands, name="ledger", rich_help_panel=ledger.PANEL)
app.add_typer(models.commands, name="models", rich_help_panel=models.PANEL)
app.add_typer(rate.commands, name="rate", rich_help_panel=score.PANEL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those of the process where not given.

    Returns:
        One of `ExitCode`.
    """
    return told(lambda: app(args=arguments, prog_name=PROGRAM, standalone_mode=False))


def told(work: Callable[[], int | None]) -> int:
    """Do some work; errors that a user can meet are printed in place of a traceback.

    Returns:
        What it returns, one of `ExitCode`.
    """
    try:
        code = work() or ExitCode.OK
    except HoiError as error:
        warn(f"error: {error}")
        return ExitCode.USER_ERROR
    except TyperException as error:
        # In one line, and without pydantic's prefix.
        what = " ".join(error.format_message().split()).replace("Value error, ", "")
        warn(f"error: {what}\n  {_usage(getattr(error, 'ctx', None))}")
        return ExitCode.USER_ERROR
    except MemoryError:
        warn(f"error: {HoiError(*OUT_OF_MEMORY)}")
        return ExitCode.USER_ERROR
    except Exception as error:
        from hoi_assets.settings.locations import home_folder
        from hoi_assets.store.disk import DiskFull, is_full

        if not is_full(error):
            raise
        warn(f"error: {DiskFull(home_folder())}")
        return ExitCode.USER_ERROR
    if code == ExitCode.INTERRUPTED:  # typer's answer to Ctrl+C
        warn("interrupted: what was finished is stored; run again to resume")
    return code


def _usage(context: Any) -> str:
    """How to call the command of the context, and where its help is."""
    if context is None:
        return f"see `{PROGRAM} --help`"
    return f"{context.get_usage().replace('Usage:', 'usage:')}; see `{context.command_path} --help`"


if __name__ == "__main__":
    sys.exit(main())
