"""`hoi models`: get the models that the profile names, and check them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hoi_assets.cli import completion
from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import log_to_stderr, print_json
from hoi_assets.cli.project import text_table
from hoi_assets.text import shown_bytes

PANEL = "Before a run"

commands = typer.Typer(
    help="The models that the profile names: get them, check them, or convert one."
)

Entries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Names under `models` of the profile, e.g. base; default: all.",
        show_default=False,
        autocompletion=completion.models,
    ),
]


@commands.command()
def check(
    entries: Entries = None,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Read fetched files whole and compare their hashes.")
    ] = False,
    as_json: Annotated[
        bool,
        json_option(
            "an object with folder (where fetched models are), ok, and models, an object each "
            "(entry, source, revision, dtype, origin, place, file_bytes, memory_bytes, parameters, "
            "problem, remedy, notes)"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Check that every model is on this machine and fits its class; offline.

    Ends with 1 where one cannot be used.
    """
    from hoi_assets.engines.model_check import check_models
    from hoi_assets.engines.model_kinds import chosen_models
    from hoi_assets.settings import load_settings, models_folder

    named = chosen_models(load_settings().models, entries or ())
    states = list(check_models(named, hashes))
    ok = all(state.problem is None for state in states)
    if as_json:
        models = [asdict(state) for state in states]
        print_json({"folder": models_folder(), "ok": ok, "models": models})
    else:
        rows = [("model", "source", "files", "state", "weights in memory")]
        for state in states:
            size = "" if state.memory_bytes is None else shown_bytes(state.memory_bytes)
            rows.append(
                (
                    state.entry,
                    state.source
                    if state.revision is None
                    else f"{state.source}@{state.revision[:8]}",
                    state.origin,
                    "ok" if state.problem is None else "NOT USABLE",
                    f"{size} {state.dtype}" if size else "",
                )
            )
        print(text_table(rows))
        for state in states:
            for note in state.notes:
                print(f"{state.entry}: {note}")
            if state.problem is not None:
                print(f"{state.entry}: {state.problem}\n  {state.remedy}")
    if not ok:
        raise typer.Exit(ExitCode.PROBLEM)


@commands.command()
def fetch(
    entries: Entries = None,
    as_json: Annotated[
        bool,
        json_option(
            "an object with folder and models, an object each (entry, source, revision, place, "
            "bytes, downloaded_bytes)"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Fetch the hub models at their pinned revisions; go on where a fetch was interrupted.

    They go to the folder that HOI_MODELS names, else data/models/full, and are found there offline.
    """
    from hoi_assets.engines.model_fetch import fetch_models
    from hoi_assets.engines.model_kinds import chosen_models
    from hoi_assets.settings import load_settings, models_folder

    named = chosen_models(load_settings().models, entries or ())
    fetched = fetch_models(named, log_to_stderr)
    if as_json:
        print_json({"folder": models_folder(), "models": [asdict(one) for one in fetched]})
        return
    for one in fetched:
        print(
            f"{one.entry}: {shown_bytes(one.bytes)} in {one.place}, "
            f"{shown_bytes(one.downloaded_bytes)} of it downloaded now"
        )
    if not fetched:
        print("the profile names no hub models: nothing to fetch")


@commands.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with .bin or .pt files.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; new or empty.")],
    profile: Profile = None,
) -> None:
    """Convert a model that is released as .bin or ImageReward.pt to safetensors.

    Files are read with torch's weights_only, so that no code in them runs.
    """
    from hoi_assets.engines.model_convert import convert_model
    from hoi_assets.settings import expand_user

    for path in convert_model(expand_user(source), expand_user(out)):
        print(path)
