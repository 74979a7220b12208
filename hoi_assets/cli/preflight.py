"""Commands before a run: plan, doctor."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import Partitions, Profile, json_option
from hoi_assets.cli.output import log_to_stderr, print_json
from hoi_assets.cli.project import chosen_by_kind, text_table
from hoi_assets.text import shown_bytes

if TYPE_CHECKING:
    from hoi_assets.preflight.costs import AssetCost, Plan
    from hoi_assets.preflight.findings import Finding

PANEL = "Before a run"
BYTES_PER_GB = 1e9
UNKNOWN = "unknown"

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def plan(
    names: Partitions = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Draw and train a few steps on this machine first, for the hours."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        json_option(
            "an object with categories, scenarios, assets (an object each: pictures, gb by format, "
            "hours, calls, usd and more; null is unknown), total, calls by section, "
            "bytes_per_picture, speeds, candidates and picture_format"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Say what a run from an empty home makes and costs, at most; nothing is drawn or called."""
    from hoi_assets.preflight.costs import make_plan
    from hoi_assets.settings import home_folder, load_settings
    from hoi_assets.taxonomy import load_taxonomy

    settings, home = load_settings(), home_folder()
    categories, scenarios = chosen_by_kind(names or (), settings)
    if measure:
        from hoi_assets.preflight.speed import measure_speeds

        measure_speeds(settings, home, log_to_stderr)
    taxonomy = load_taxonomy(settings.taxonomy_folder)
    made = make_plan(settings, taxonomy, home, categories, scenarios)
    if as_json:
        print_json(asdict(made))
    else:
        print_plan(made)


def print_plan(made: "Plan") -> None:
    """Print a plan as a table, with what it rests on."""
    heads = ("asset", "partitions", "pictures", "training steps", "disk", "hours", "calls", "USD")
    rows = [heads, *(_plan_row(one, made.picture_format) for one in (*made.assets, made.total))]
    print(text_table(rows))
    print("at most, from an empty home; scoring is not counted")
    if made.candidates is not None:
        print(f"candidates: {made.candidates}")
    for model, measured in made.bytes_per_picture.items():
        if measured is None:
            print(
                f"{model}: disk unknown: no picture of that size to measure, here or in your photos"
            )
        else:
            sizes = ", ".join(f"{shown_bytes(n)} as {f}" for f, n in measured.by_format.items())
            size = "x".join(map(str, measured.size))
            print(f"{model}: {size} px, {sizes}; measured on {measured.samples} {measured.source}")
    other = next(name for name in made.total.gb if name != made.picture_format)
    gb = made.total.gb[other]
    if gb:
        print(
            f"picture_format is {made.picture_format}; as {other}: {shown_bytes(gb * BYTES_PER_GB)}"
        )
    if made.total.hours is None:
        print("hours unknown: run `hoi plan --measure` on the machine that will draw")
    unpriced = [call.section for call in made.calls if call.usd is None]
    if unpriced:
        print(f"USD unknown: set the prices of {', '.join(unpriced)} (0 for your own server)")
    for call in made.calls:
        usd = "price unknown" if call.usd is None else f"{call.usd:.2f} USD"
        cap = "" if call.cap_usd is None else f", stops at {call.cap_usd:.2f} USD (budget_usd)"
        tokens = (
            ""
            if call.input_tokens is None
            else f", {call.input_tokens} tokens in, {call.output_tokens} out"
        )
        print(f"{call.section}: {call.count} calls{tokens}, {usd}{cap}")


def _plan_row(one: "AssetCost", picture_format: str) -> tuple[str, ...]:
    gb = one.gb[picture_format]
    return (
        one.asset,
        str(one.partitions),
        str(one.pictures or ""),
        str(one.training_steps or ""),
        ("" if not one.pictures else UNKNOWN if gb is None else shown_bytes(gb * BYTES_PER_GB)),
        (
            ""
            if not one.pictures and not one.training_steps
            else UNKNOWN
            if one.hours is None
            else f"{one.hours:.2f}"
        ),
        str(one.calls or ""),
        ("" if not one.calls else UNKNOWN if one.usd is None else f"{one.usd:.2f}"),
    )


@commands.command(rich_help_panel=PANEL)
def doctor(
    names: Partitions = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Make no call to the hub or to an endpoint.")
    ] = False,
    draw: Annotated[
        bool,
        typer.Option(
            "--draw",
            help="Have image_endpoint draw one picture, at its price; else it is asked "
            "for its list of models.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        json_option(
            "an object with ready, findings (an object each: area, subject, state, what, remedy) "
            "and plan, as `hoi plan --json` prints it, or null"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Check the profile against this machine before anything runs; then say what it costs.

    Models, licences, device, memory, disk, endpoints (one cheap call each), photos and categories.
    Ends with 1 where something would stop the run.
    """
    from hoi_assets.preflight.doctor import diagnose
    from hoi_assets.settings import home_folder, load_settings

    settings = load_settings()
    categories, scenarios = chosen_by_kind(names or (), settings)
    found = diagnose(settings, home_folder(), categories, scenarios, offline, draw)
    if as_json:
        findings = [asdict(one) for one in found.findings]
        plan = None if found.plan is None else asdict(found.plan)
        print_json({"ready": found.ready, "findings": findings, "plan": plan})
    else:
        for one in found.findings:
            print_finding(one)
        if found.plan is not None:
            print()
            print_plan(found.plan)
        problems = sum(one.state == "problem" for one in found.findings)
        warnings = sum(one.state == "warning" for one in found.findings)
        state = "ready" if found.ready else "NOT READY"
        print(f"\n{state}; problems: {problems}, warnings: {warnings}")
    if not found.ready:
        raise typer.Exit(ExitCode.PROBLEM)


def print_finding(one: "Finding") -> None:
    """Print one finding, with its remedy below."""
    mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[one.state]
    print(f"{mark}  {one.area}  {one.subject}: {one.what}")
    if one.remedy:
        print(f"         -> {one.remedy}")
