"""`hoi interacting`: the official files of the InterActing benchmark."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import print_json

commands = typer.Typer(
    help="The InterActing benchmark: fetch its official files, or check a folder of them."
)


@commands.command()
def fetch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write to.")],
    commit: Annotated[
        str | None,
        typer.Option(help="Commit of the authors' repository; default: the known one."),
    ] = None,
    profile: Profile = None,
) -> None:
    """Fetch the official files from their authors' repository."""
    from hoi_assets.detailscribe.benchmark_download import COMMIT, fetch_official_files
    from hoi_assets.settings import expand_user

    folder = expand_user(folder)
    for file in fetch_official_files(folder, commit=commit or COMMIT):
        known = "as known" if file.verified else "hash not known beforehand: count and form checked"
        print(f"{folder / file.name}: {file.rows} rows, sha256 {file.sha256} ({known})")
    print(f"set interacting.folder to {folder.resolve()} in your profile to use them")


@commands.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the files.")],
    as_json: Annotated[
        bool,
        json_option(
            "an object with usable (rows by scenario) and bad, a list of objects with file, line "
            "(null: the whole file) and reason"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Check a folder of the benchmark's files; ends with 1 where a row is bad."""
    from hoi_assets.detailscribe import benchmark
    from hoi_assets.settings import expand_user

    folder = expand_user(folder)
    rows = benchmark.read_benchmark(folder)
    bad = [row for row in rows if row.status == "failed"]
    count = Counter(row.scenario for row in rows if row.status == "accepted")
    usable = {scenario: count[scenario] for scenario in benchmark.SCENARIOS}
    if as_json:
        faults = [
            {"file": folder / row.source, "line": row.line, "reason": row.reason} for row in bad
        ]
        print_json({"usable": usable, "bad": faults})
    else:
        for row in bad:
            print(f"{folder / row.source}{f':{row.line}' if row.line else ''}: {row.reason}")
        print(f"usable rows: {', '.join(f'{n} {scenario}' for scenario, n in usable.items())}")
    if bad:
        raise typer.Exit(ExitCode.PROBLEM)
