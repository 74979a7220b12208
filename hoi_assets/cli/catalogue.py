"""Commands about what is stored: sql, prune, repair."""

from typing import Annotated, Any

import typer

from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import print_json
from hoi_assets.cli.project import known_partitions, open_store, open_store_of_any_profile

PANEL = "Stored data"
SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_CHARACTERS = 200, 50, 120

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One query.")],
    as_json: Annotated[
        bool, json_option("a list of all rows, objects with the query's columns")
    ] = False,
    profile: Profile = None,
) -> None:
    """Query the catalogue, read-only, in DuckDB's SQL. `show tables` lists what there is."""
    import polars as pl

    from hoi_assets.store import catalogue

    store = open_store_of_any_profile()
    found = catalogue.query(store, query, known_partitions(store))
    if as_json:
        print_json(found.to_dicts())
        return
    with pl.Config(
        tbl_rows=SHOWN_ROWS,
        tbl_cols=SHOWN_COLUMNS,
        fmt_str_lengths=SHOWN_CHARACTERS,
        tbl_hide_dataframe_shape=True,
    ):
        print(found)


@commands.command(rich_help_panel=PANEL)
def prune(
    keep: Annotated[int, typer.Option(help="Versions to keep per asset and partition.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    with_orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Remove what belongs to categories that the taxonomy no longer has."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        json_option(
            "an object with versions (paths of folders), count, orphaned (partitions) and dry_run"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Remove old versions that nothing in force needs."""
    from hoi_assets.store.orphans import orphans
    from hoi_assets.store.pruning import prune as remove_versions

    store = open_store()
    known = known_partitions(store) if with_orphans else None
    orphaned = sorted({partition for _, partition in orphans(store, known or ())} if known else ())
    removed = remove_versions(store, keep=keep, dry_run=dry_run, known=known)
    if as_json:
        print_json(
            {
                "versions": removed,
                "count": len(removed),
                "orphaned": orphaned,
                "dry_run": dry_run,
            }
        )
        return
    for path in removed:
        print(path)
    if with_orphans:
        print(f"not in the taxonomy any more: {', '.join(orphaned) or 'none'}")
    print(f"{len(removed)} versions {'would go' if dry_run else 'removed'}")


@commands.command(rich_help_panel=PANEL)
def repair(
    as_json: Annotated[
        bool,
        json_option(
            "an object with damaged (why, or null), aside (the damaged file, or null), made and "
            "rows (entries kept) and entered (rows of published tables)"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Check the ledger; make a damaged one anew of what is sound, and enter missing rows of
    published tables. No run may be going on."""
    from hoi_assets.defs.project import load_project
    from hoi_assets.publishing.ledger_rows import published_rows
    from hoi_assets.store.ledger_file import DamagedLedger
    from hoi_assets.store.ledger_repair import enter_missing
    from hoi_assets.store.ledger_repair import repair as repair_ledger

    store = open_store()
    store.require_writable()
    found: dict[str, Any] = {"damaged": None, "aside": None}
    rows = list(published_rows(load_project().graph, store))
    try:
        found |= store.ledger.verify()
        found["entered"] = enter_missing(store.ledger, rows)
    except DamagedLedger as error:
        done = repair_ledger(store.ledger, rows)
        aside = None if done.aside is None else str(done.aside)
        found |= {"damaged": error.what, "aside": aside, "entered": done.entered}
        found |= done.kept
    if as_json:
        print_json(found)
        return
    if found["damaged"] is not None:
        print(found["damaged"])
        if found["aside"] is None:
            print("altered entries are deleted; what they held is made again when asked for")
        else:
            print(f"made anew of what is sound; the damaged file is {found['aside']}")
    print(
        f"{found['made']} generated values and {found['rows']} rows are sound; "
        f"{found['entered']} rows of published tables were missing and are entered"
    )
