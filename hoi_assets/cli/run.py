"""Commands that run the pipelines and show their state: run, stale, backfill, ui, summary."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from hoi_assets.cli import completion
from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import OnlyOption, Partitions, Profile, json_option
from hoi_assets.cli.output import print_json, warn
from hoi_assets.cli.project import (
    AssetStatus,
    Project,
    known_partitions,
    open_store,
    partition_names,
    text_table,
    use_dagster_home,
)
from hoi_assets.cli.ui_address import Address, announce, check_free, claim, last_address
from hoi_assets.errors import HoiError

BUSY_MACHINE_S = 300
MAX_PORT = 65535
REASON_WIDTH = 200
PANEL = "Pipelines"

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def run(
    partitions: Partitions = None,
    all_partitions: Annotated[
        bool, typer.Option("--all", help="All categories and scenarios.")
    ] = False,
    only: OnlyOption = "all",
    force: Annotated[
        bool, typer.Option("--force", help="Compute even if nothing changed.")
    ] = False,
    profile: Profile = None,
) -> None:
    """Run the pipelines: over the profile's categories and scenarios, or those named.

    Ends with 1 where a partition is blocked.
    """
    from hoi_assets.cli.summary import print_summary, summarise_home

    project = Project()
    chosen = project.chosen(partitions or (), all_partitions)
    _link_to_pages()
    result = project.run(chosen, only, force)
    print(f"\n{result.table}\n")
    store = open_store()
    found = summarise_home(store, *project.by_kind(chosen), known_partitions(store))
    print_summary(found)
    if result.blocked:
        warn(
            f"blocked: {', '.join(result.blocked)}. What was published before stays in force.\n"
            "  see the reasons above, or `hoi ui`; then `hoi run --only failed`"
        )
        raise typer.Exit(ExitCode.PROBLEM)


@commands.command("round", rich_help_panel=PANEL)
def another_round(
    categories: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CATEGORY",
            help="Hand-pose categories; without any, those of the profile.",
            show_default=False,
            autocompletion=completion.categories,
        ),
    ] = None,
    profile: Profile = None,
) -> None:
    """One more round: prompts of the slices that lack accepted images, and a new LoRA where little
    is accepted; what was drawn before is kept. The first pass comes first where there was none.

    Ends with 1 where a category is blocked.
    """
    from hoi_assets.cli.round_table import print_rounds

    _link_to_pages()
    result = Project().run_round(categories or ())
    print(f"\n{result.table}\n")
    print_rounds(open_store())
    print("`hoi run --only stale` takes the new pairs into the dataset, fine-tuning and report")
    if result.blocked:
        warn(
            f"blocked: {', '.join(result.blocked)}. What was published before stays in force.\n"
            "  see the reasons above, or `hoi ui`; then `hoi round` again"
        )
        raise typer.Exit(ExitCode.PROBLEM)


@commands.command(rich_help_panel=PANEL)
def summary(
    as_json: Annotated[
        bool,
        json_option(
            "an object with profile (its name), categories, scenarios, rounds, scores, costs and "
            "orphaned (lists of objects), and places (paths by name)"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Counts, reasons and scores of what is published."""
    from hoi_assets.cli.summary import print_summary, summarise_home

    store = open_store()
    made = {*store.partitions("detailed_prompts"), *store.partitions("interacting_prompts")}
    categories, scenarios = ([key for key in own if key in made] for own in partition_names())
    found = summarise_home(store, categories, scenarios, known_partitions(store))
    if as_json:
        print_json(found)
    else:
        print_summary(found)


@commands.command(rich_help_panel=PANEL)
def stale(
    show_all: Annotated[bool, typer.Option("--all", help="Show fresh ones too.")] = False,
    as_json: Annotated[
        bool,
        json_option(
            "an object with total and fresh (counts), runs_by_default (partitions), and assets, a "
            "list of objects with asset, partition, state, reasons, failed_rows and version; the "
            "fresh ones with --all only"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """List what is out of date, missing or blocked."""
    project = Project()
    found = project.statuses()
    shown = [status for status in found if show_all or not status.fresh]
    fresh = sum(status.fresh for status in found)
    default = project.default_partitions()
    if as_json:
        print_json(
            {
                "total": len(found),
                "fresh": fresh,
                "runs_by_default": default,
                "assets": [_as_json(status) for status in shown],
            }
        )
        return
    if shown:
        rows = [
            (s.asset, s.partition or "", s.state, _first_line("; ".join(s.reasons))) for s in shown
        ]
        print(text_table([("asset", "partition", "state", "why"), *rows]))
    print(f"{fresh} of {len(found)} are fresh")
    left = [status.partition for status in found if not status.fresh]
    others = [key for key in left if key is not None and key not in default]
    own = len(left) - len(others)
    if own:
        print(f"  `hoi run --only stale` makes {own}, of the profile's: {', '.join(default)}")
    if others:
        keys = ", ".join(dict.fromkeys(others))
        print(f"  `hoi run --only stale --all` makes the other {len(others)} too: {keys}")


@commands.command(rich_help_panel=PANEL)
def backfill(
    partitions: Partitions = None,
    all_partitions: Annotated[
        bool, typer.Option("--all", help="All categories and scenarios.")
    ] = False,
    only: OnlyOption = "all",
    profile: Profile = None,
) -> None:
    """Ask Dagster's daemon (started by `hoi ui`) for one run per category or scenario."""
    if not partitions and not all_partitions:
        raise HoiError("no category or scenario named", "name one or more, or pass --all")
    project = Project()
    chosen = project.asked_for(project.chosen(partitions or (), all_partitions), only)
    if not chosen:
        print(f"nothing {only} in these")
        return
    launched = project.backfill(chosen)
    runs = f"{len(chosen)} runs, one each: {', '.join(chosen)}"
    print(f"backfill {', '.join(launched.ids)}: {runs}")
    print("  follow it in the UI under Runs > Backfills, then `hoi run` makes what depends on them")
    if not launched.daemon_alive:
        warn("  no daemon is running: it starts with `hoi ui` (make ui)")


@commands.command(rich_help_panel=PANEL)
def ui(
    port: Annotated[int, typer.Option(min=1, max=MAX_PORT, help="Port of the UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    pages_port: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_PORT, help="Port of Data Docs and reports, which the UI links to."
        ),
    ] = 3001,
    profile: Profile = None,
) -> None:
    """Dagster's UI and daemon on loopback; beside them Data Docs and reports."""
    from hoi_assets.settings import ROOT, home_location

    dagster_home = use_dagster_home()
    claim(dagster_home)
    check_free(host, port, "--port")
    check_free(host, pages_port, "--pages-port")
    pages_url = os.environ.setdefault("HOI_PAGES_URL", f"http://{host}:{pages_port}")
    announce(dagster_home, Address(f"http://{host}:{port}", pages_url, os.getpid()))
    pages = [sys.executable, "-m", "hoi_assets.cli.pages", str(home_location()), host]
    subprocess.Popen([*pages, str(pages_port)])
    # A training can keep every core busy for longer than Dagster waits for its own processes.
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", str(BUSY_MACHINE_S))
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml")]
    command += ["--host", host, "--port", str(port)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _link_to_pages() -> None:
    """Let what the UI shows of this run link to where `hoi ui` serves pages."""
    address = last_address(use_dagster_home())
    if address is not None:
        os.environ.setdefault("HOI_PAGES_URL", address.pages_url)


def _as_json(status: AssetStatus) -> dict[str, object]:
    return {
        "asset": status.asset,
        "partition": status.partition,
        "state": status.state,
        "reasons": list(status.reasons),
        "failed_rows": status.failed_rows,
        "version": status.version,
    }


def _first_line(text: str) -> str:
    return text.splitlines()[0][:REASON_WIDTH] if text else ""
