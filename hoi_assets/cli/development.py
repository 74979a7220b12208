"""Commands for those who change the code: lock-code-versions."""

from typing import Annotated

import typer

from hoi_assets.cli import completion
from hoi_assets.cli.options import Profile
from hoi_assets.cli.output import warn
from hoi_assets.cli.project import lock_code_versions

PANEL = "Development"

SameOutput = Annotated[
    list[str] | None,
    typer.Option(
        "--same-output",
        metavar="ASSET",
        help="Assets whose code changed without changing what they make.",
        show_default=False,
        autocompletion=completion.assets,
    ),
]
MoreAssets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ASSET",
        help="More of them, after --same-output.",
        show_default=False,
        autocompletion=completion.assets,
    ),
]

commands = typer.Typer()


@commands.command("lock-code-versions", rich_help_panel=PANEL)
def lock(same_output: SameOutput = None, more: MoreAssets = None, profile: Profile = None) -> None:
    """Lock the code versions of all assets after a code_version was raised."""
    # `--same-output A B`: typer gives an option one value, so the others come as arguments.
    if more and not same_output:
        raise typer.BadParameter("assets are named after --same-output", param_hint="ASSET")
    path, count = lock_code_versions([*(same_output or ()), *(more or ())])
    print(f"{count} code versions locked in {path}")


@commands.command("lock-recipes", hidden=True)
def lock_recipes(
    same_output: SameOutput = None, more: MoreAssets = None, profile: Profile = None
) -> None:
    """The former name of lock-code-versions, for one release."""
    warn("warning: `hoi lock-recipes` is now `hoi lock-code-versions`; the old name will go")
    lock(same_output, more)
