"""`hoi score`: pictures that you already have, scored by the profile's metrics."""

from pathlib import Path
from typing import Annotated

import typer

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import log_to_stderr, print_json, warn

PANEL = "Your data and people"

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def score(
    images: Annotated[Path, typer.Option(help="The folder of pictures.")],
    prompts: Annotated[
        Path,
        typer.Option(
            help=".jsonl or .csv with `file` and `prompt`; or .txt, a prompt a line, for the "
            "pictures in the order of their sorted names."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help=".parquet or .csv; the reproduction record (.json) goes beside it."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A table of scores to take percentiles in; default: the profile's reference "
            "pictures."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        json_option(
            "an object with table and record (paths), summary (an object per metric), failed "
            "(count), reference, and complaints about the reference scores"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Score pictures that you already have by the profile's metrics.

    Ends with 1 where not one picture could be scored.
    """
    from hoi_assets.cli.folder_scoring import score_folder
    from hoi_assets.evaluation import folder_scores
    from hoi_assets.settings import expand_user, home_folder, load_settings

    made = score_folder(
        load_settings(),
        home_folder(),
        expand_user(images),
        expand_user(prompts),
        out=expand_user(out) if out else None,
        reference=expand_user(reference) if reference else None,
        log=log_to_stderr if as_json else print,
    )
    for complaint in made.complaints:
        warn(f"NOT AS EXPECTED: {complaint}")
    if as_json:
        print_json(
            {
                "table": made.table,
                "record": made.record,
                "summary": made.summary.to_dicts(),
                "failed": made.failed,
                "reference": made.reference,
                "complaints": made.complaints,
            }
        )
    else:
        folder_scores.print_summary(made.summary, made.failed, made.reference)
        print(f"scores: {made.table}\nreproduction record: {made.record}")
    if made.summary.is_empty():
        raise typer.Exit(ExitCode.PROBLEM)
