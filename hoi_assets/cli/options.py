"""Options and arguments that several commands share, and their shell completion."""

import os
from typing import Annotated

import typer
from typer.models import OptionInfo

from hoi_assets.cli import completion
from hoi_assets.cli.project import Only


def _use_profile(profile: str | None) -> str | None:
    # The environment, as Dagster's own processes read the profile there.
    if profile:
        os.environ["HOI_PROFILE"] = profile
    return profile


def json_option(keys: str) -> OptionInfo:
    """`--json` of a query; `keys` says what the printed JSON holds."""
    return typer.Option("--json", help=f"Print JSON to stdout: {keys}.")


# Taken by every command; its callback does all, so that no command reads the value.
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name or path of a YAML file; default: HOI_PROFILE, else tiny.",
        callback=_use_profile,
        is_eager=True,
        autocompletion=completion.profiles,
    ),
]
Partitions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PARTITION",
        help="Hand-pose categories and scenarios.",
        show_default=False,
        autocompletion=completion.partitions,
    ),
]
OnlyOption = Annotated[
    Only,
    typer.Option(
        help="stale: changed, missing or blocked. failed: blocked, or with failed rows. missing: "
        "never published.",
    ),
]
