"""`hoi ledger`: where the ledger is kept."""

from typing import Annotated

import typer

from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import print_json
from hoi_assets.cli.project import open_store

PANEL = "Stored data"

commands = typer.Typer(help="Keep the ledger on a Postgres server.", no_args_is_help=True)


@commands.callback()
def _ledger() -> None:
    """A callback makes typer keep the command's name although it is the only one."""


@commands.command()
def move(
    as_json: Annotated[
        bool, json_option("an object with made and rows (entries moved) and file (the old one)")
    ] = False,
    profile: Profile = None,
) -> None:
    """Move the home's ledger to the Postgres database that HOI_LEDGER_URL names. No run may be
    going on."""
    from hoi_assets.store.ledger_home import FILE, MOVED, move_to_server

    store = open_store()
    store.require_writable()
    counts = move_to_server(store.home, store.staging, store.remote)
    file = str(store.home / f"{FILE}{MOVED}")
    if as_json:
        print_json({**counts, "file": file})
        return
    print(f"{counts['made']} generated values and {counts['rows']} rows moved; the file is {file}")
