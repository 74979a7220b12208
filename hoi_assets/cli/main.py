"""The command line, `hoi`."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT, home_folder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dagster import DagsterInstance

    from hoi_assets.defs.automation import Line

# Held partitions end with 1, a mistake one can mend with 2.
HELD, MISTAKE, INTERRUPTED = 1, 2, 130
BUSY_MACHINE_S = 300
# Copies, as the modules that have them are imported late.
RATE_SUITES = ("hoi", "general", "interacting", "labels")  # = rating.pictures.SUITES
RATE_HOST, RATE_PORT = "127.0.0.1", 8765  # = rating.page.HOST, PORT
ONLY = ("all", "stale", "failed", "missing")  # = automation.ONLY, which takes a second to import

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="hoi", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_run,
        _add_summary,
        _add_stale,
        _add_backfill,
        _add_ui,
        _add_trace,
        _add_replay,
        _add_sql,
        _add_prune,
        _add_lock,
        _add_interacting,
        _add_rate,
        _add_score,
    ):
        add(commands)
    options = parser.parse_args(arguments)
    if options.profile:
        os.environ["HOI_PROFILE"] = options.profile
    try:
        command: Command = options.function
        return command(options)
    except HoiError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("interrupted: what was made is kept; run again to go on", file=sys.stderr)
        return INTERRUPTED


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    function: Command,
    words: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=words)
    parser.set_defaults(function=function)
    parser.add_argument(
        "--profile", help="name or path of a YAML file; else HOI_PROFILE, else tiny"
    )
    return parser


def _partitions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "partitions", nargs="*", metavar="PARTITION", help="hand-pose categories and scenarios"
    )
    parser.add_argument("--all", action="store_true", help="all categories and scenarios")
    parser.add_argument(
        "--only",
        choices=ONLY,
        default="all",
        help="stale: changed, missing or failed; failed: held back or with failed rows; "
        "missing: never made",
    )


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
        commands,
        "run",
        run,
        "Run the line: the profile's categories and scenarios, or those given.",
    )
    _partitions(parser)
    parser.add_argument("--force", action="store_true", help="compute though nothing changed")


def _add_summary(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "summary", summary, "Counts, reasons and scores of what is there.")
    parser.add_argument("--json", action="store_true", help="for scripts")


def _add_trace(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "trace", trace, "One image's way from prompt to verdict.")
    parser.add_argument("image_id", help="its id, or the first digits of it")


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "Draw one image again, alone; ends with 1 where the pixels differ."
    parser = _command(commands, "replay", replay, words)
    parser.add_argument("image_id", help="its id, or the first digits of it")
    parser.add_argument("--out", type=Path, help="where to write the picture (PNG)")


def _add_stale(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "stale", stale, "List what is out of date, missing or held.")
    parser.add_argument("--all", action="store_true", help="what is fresh as well")


def _add_backfill(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "Ask Dagster's daemon (started by `hoi ui`) for one run per category or scenario."
    _partitions(_command(commands, "backfill", backfill, words))


def _add_ui(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "ui", ui, "Dagster's UI and daemon on loopback.")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--host", default="127.0.0.1")


def _add_sql(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "sql", sql, "Ask the catalogue, read-only, in DuckDB's SQL.")
    parser.add_argument("query")


def _add_prune(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "prune", prune, "Remove old versions that nothing in force needs.")
    parser.add_argument("--keep", type=int, default=1, help="latest versions to keep of each")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _add_lock(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "Lock the recipes of all stages after code_version was raised."
    parser = _command(commands, "lock-recipes", lock_recipes, words)
    parser.add_argument("--same-output", nargs="*", default=[], metavar="STAGE")


def _add_interacting(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "The InterActing benchmark: fetch its official files, or check a folder of them."
    parser = _command(commands, "interacting", interacting, words)
    parser.add_argument("action", choices=("fetch", "check"))
    parser.add_argument("folder", type=Path, help="where the files go, or are")
    parser.add_argument("--commit", help="fetch: of the authors' repository, instead of the known")


def _add_rate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "People's judgement of published pictures: studies, rating pages, labels."
    actions = commands.add_parser("rate", help=words, description=words).add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    parser = _command(actions, "make", rate_make, "Make a study of published pictures.")
    parser.add_argument("name", help="of the new study")
    parser.add_argument(
        "--suite",
        choices=RATE_SUITES,
        required=True,
        help="hoi, general: evaluation images; interacting: what each method of the second line "
        "chose; labels: candidates, to be accepted or rejected",
    )
    parser.add_argument(
        "--mode",
        choices=("rating", "pairwise"),
        default="rating",
        help="rating: one picture, 1 to 5; pairwise: which of two; labels are always yes or no",
    )
    parser.add_argument("--methods", metavar="A,B", help="only these methods")
    parser.add_argument("--prompts", type=int, help="so many prompts, chosen by hash")
    parser.add_argument("--seed", type=int, default=0, help="of that choice and of every order")
    words = "A new secret link for each rater; an earlier link stops working, votes stay."
    parser = _command(actions, "links", rate_links, words)
    parser.add_argument("name", help="of the study")
    parser.add_argument("raters", nargs="+", metavar="RATER", help="pseudonyms, e.g. rater-1")
    parser.add_argument("--url", default=f"http://{RATE_HOST}:{RATE_PORT}", help="of the page")
    parser = _command(actions, "serve", rate_serve, "Serve a study's page; Ctrl+C stops it.")
    parser.add_argument("name", help="of the study")
    parser.add_argument("--port", type=int, default=RATE_PORT)
    parser.add_argument("--host", default=RATE_HOST, help="other than loopback: not encrypted")
    parser = _command(actions, "status", rate_status, "How many answers each rater gave.")
    parser.add_argument("name", nargs="?", help="of the study; all where left out")
    words = (
        "Write the labels that people gave (a study of suite labels) and their pictures to a "
        "folder. Set verifier.labels_folder to it in your profile, and `hoi run` trains the "
        "verifier on them."
    )
    parser = _command(actions, "labels", rate_labels, words)
    parser.add_argument("name", help="of the study")
    parser.add_argument("--out", type=Path, required=True, help="where labels.csv goes")


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "Score pictures that you already have by the profile's metrics."
    parser = _command(commands, "score", score, words)
    parser.add_argument("--images", type=Path, required=True, help="the folder of pictures")
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        help=".jsonl or .csv with `file` and `prompt`, or .txt: a prompt a line, for the pictures "
        "in the order of their sorted names",
    )
    parser.add_argument(
        "--out", type=Path, help=".parquet or .csv; beside it goes the reproduction record (.json)"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        help="a table of scores that percentiles are of; else the profile's reference pictures",
    )


def run(options: argparse.Namespace) -> int:
    """`hoi run`."""
    from hoi_assets.cli.summary import print_summary, summarise_line
    from hoi_assets.defs.automation import drive

    line = _line()
    with _instance() as instance:
        report = drive(
            line, instance, _chosen(line, options), only=options.only, force=options.force
        )
    print(f"\n{report.table()}\n")
    chosen, keys = _chosen(line, options), line.platform.partition_keys
    own = [[key for key in keys[kind] if key in chosen] for kind in ("hand_pose", "scenario")]
    print_summary(summarise_line(line.platform.store, *own))
    if not report.held:
        return 0
    names = ", ".join(dict.fromkeys(done.partition or done.job for done in report.held))
    print(
        f"held: {names}. What was published before stays in force.\n"
        "  see the reasons above, or `hoi ui`; then `hoi run --only failed`",
        file=sys.stderr,
    )
    return HELD


def summary(options: argparse.Namespace) -> int:
    """`hoi summary`."""
    from hoi_assets.cli.summary import print_summary, summarise_line
    from hoi_assets.grammar.plans import SCENARIOS
    from hoi_assets.settings import load_settings
    from hoi_assets.store.versions import Store
    from hoi_assets.taxonomy import category_keys

    store = Store(home_folder())
    made = {*store.partitions("detailed_prompts"), *store.partitions("interacting_prompts")}
    keys = (category_keys(load_settings().taxonomy_folder), SCENARIOS)
    told = summarise_line(store, *([key for key in own if key in made] for own in keys))
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print_summary(told)
    return 0


def trace(options: argparse.Namespace) -> int:
    """`hoi trace`."""
    from hoi_assets.cli import tracing
    from hoi_assets.store.versions import Store

    for title, facts in tracing.trace(Store(home_folder()), options.image_id):
        print(title)
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            print(f"  {name.ljust(width)}  {value}")
    return 0


def replay(options: argparse.Namespace) -> int:
    """`hoi replay`."""
    from hoi_assets.cli import replaying
    from hoi_assets.settings import load_settings
    from hoi_assets.store.versions import Store

    found = replaying.replay(Store(home_folder()), load_settings(), options.image_id)
    if options.out:
        found.image.save(options.out)
    if found.equal:
        print(f"{options.image_id}: drawn again alone, all pixels are equal")
        return 0
    print(f"{options.image_id}: the pixels differ, by at most {found.largest_difference} of 255")
    for name, (before, now) in found.differences.items():
        print(f"  {name}: {before} when it was made, {now} now")
    return 1


def stale(options: argparse.Namespace) -> int:
    """`hoi stale`."""
    from hoi_assets.defs.automation import aligned

    line = _line()
    platform = line.platform
    found = line.graph.status(platform.settings, platform.store, platform.partition_keys)
    shown = [status for status in found if options.all or status.state != "fresh"]
    if shown:
        rows = [("asset", "partition", "state", "why")]
        rows += [
            (s.stage, s.partition or "", s.state, "; ".join(s.reasons).splitlines()[0][:200])
            for s in shown
            if s.reasons or options.all
        ]
        print(aligned(rows))
    fresh = sum(status.state == "fresh" for status in found)
    print(f"{fresh} of {len(found)} are fresh; `hoi run --only stale` makes the rest")
    return 0


def backfill(options: argparse.Namespace) -> int:
    """`hoi backfill`."""
    from hoi_assets.defs.automation import daemon_alive, launch_backfills, matches

    line = _line()
    platform = line.platform
    if not options.partitions and not options.all:
        raise HoiError("no category or scenario named", "name one or more, or say --all")
    chosen = _chosen(line, options)
    if options.only != "all":
        found = line.graph.status(platform.settings, platform.store, platform.partition_keys)
        wanted = {s.partition for s in found if s.partition and matches(s, options.only)}
        chosen = tuple(key for key in chosen if key in wanted)
    if not chosen:
        print(f"nothing {options.only} in these")
        return 0
    with _instance() as instance:
        ids = launch_backfills(line, instance, chosen, {})
        alive = daemon_alive(instance)
    print(f"backfill {', '.join(ids)}: {len(chosen)} runs, one each: {', '.join(chosen)}")
    print("  follow it in the UI under Runs > Backfills, then `hoi run` makes what comes after")
    if not alive:
        print("  no daemon is running: it starts with `hoi ui` (make ui)", file=sys.stderr)
    return 0


def ui(options: argparse.Namespace) -> int:
    """`hoi ui`: replaces this process by `dagster dev`."""
    _dagster_home()
    # A training can keep every core busy for longer than Dagster waits for its own processes.
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", str(BUSY_MACHINE_S))
    os.chdir(ROOT)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml")]
    command += ["--host", options.host, "--port", str(options.port)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def sql(options: argparse.Namespace) -> int:
    """`hoi sql`."""
    import polars as pl

    from hoi_assets.store.catalogue import query
    from hoi_assets.store.versions import Store

    with pl.Config(tbl_rows=200, tbl_cols=50, fmt_str_lengths=120, tbl_hide_dataframe_shape=True):
        print(query(Store(home_folder()), options.query))
    return 0


def prune(options: argparse.Namespace) -> int:
    """`hoi prune`."""
    from hoi_assets.store.versions import Store

    removed = Store(home_folder()).prune(keep=options.keep, dry_run=options.dry_run)
    for path in removed:
        print(path)
    print(f"{len(removed)} versions {'would go' if options.dry_run else 'removed'}")
    return 0


def lock_recipes(options: argparse.Namespace) -> int:
    """`hoi lock-recipes`."""
    from hoi_assets.publishing.code_versions import LOCK_FILE, write_lock
    from hoi_assets.publishing.graph import stages_in

    lock = write_lock(stages_in("hoi_assets.defs"), options.same_output)
    print(f"{len(lock)} recipes locked in {LOCK_FILE.relative_to(ROOT)}")
    return 0


def interacting(options: argparse.Namespace) -> int:
    """`hoi interacting`: fetch ends with 2 where it cannot, check with 1 where a row failed."""
    from hoi_assets.detailscribe import benchmark

    folder = options.folder.expanduser()
    if options.action == "fetch":
        for file in benchmark.fetch(folder, commit=options.commit or benchmark.COMMIT):
            known = "as known" if file.verified else "not known beforehand: count and form checked"
            print(f"{folder / file.name}: {file.rows} rows, sha256 {file.sha256} ({known})")
        print(f"set interacting.folder to {folder.resolve()} in your profile to use them")
        return 0
    rows = benchmark.read_benchmark(folder)
    bad = [row for row in rows if row.status == "failed"]
    for row in bad:
        print(f"{folder / row.source}{f':{row.line}' if row.line else ''}: {row.reason}")
    count = Counter(row.scenario for row in rows if row.status == "accepted")
    usable = ", ".join(f"{count[scenario]} {scenario}" for scenario in benchmark.SCENARIOS)
    print(f"usable rows: {usable}")
    return 1 if bad else 0


def rate_make(options: argparse.Namespace) -> int:
    """`hoi rate make`."""
    from hoi_assets.rating.pictures import LABELS, make_suite_study
    from hoi_assets.rating.study import study_folder
    from hoi_assets.store.versions import Store

    home = home_folder()
    study = make_suite_study(
        Store(home),
        study_folder(home, options.name),
        options.suite,
        "verify" if options.suite == LABELS else options.mode,
        methods=options.methods.split(",") if options.methods else None,
        prompts=options.prompts,
        seed=options.seed,
    )
    print(f"study {options.name}: {len(study.items)} {study.mode} items")
    if study.equal:
        print(f"  {len(study.equal)} pairs are the same picture and are not shown")
    for one in study.left_out:
        print(f"  picture {one.number} is left out: {one.reason}")
    print(f"  hoi rate links {options.name} RATER...   then   hoi rate serve {options.name}")
    return 0


def rate_links(options: argparse.Namespace) -> int:
    """`hoi rate links`."""
    from hoi_assets.rating.raters import links
    from hoi_assets.rating.study import study_folder

    folder = study_folder(home_folder(), options.name)
    for rater, link in links(folder, options.raters, options.url).items():
        print(f"{rater}  {link}")
    return 0


def rate_serve(options: argparse.Namespace) -> int:
    """`hoi rate serve`."""
    from hoi_assets.rating.page import serve
    from hoi_assets.rating.study import study_folder

    folder = study_folder(home_folder(), options.name)
    serve(folder, options.host, options.port, log=partial(print, flush=True))
    return 0


def rate_status(options: argparse.Namespace) -> int:
    """`hoi rate status`."""
    from hoi_assets.rating.study import study_folder, study_folders
    from hoi_assets.rating.votes import progress

    home = home_folder()
    folders = [study_folder(home, options.name)] if options.name else study_folders(home)
    if not folders:
        print("no study yet; `hoi rate make` makes one")
    for folder in folders:
        found = progress(folder)
        print(folder.name)
        for row in found.iter_rows(named=True):
            print(f"  {row['rater']}  {row['answered']} of {row['of']} answers")
        if found.is_empty():
            print(f"  no rater yet; `hoi rate links {folder.name} RATER` makes a link")
    return 0


def rate_labels(options: argparse.Namespace) -> int:
    """`hoi rate labels`."""
    from hoi_assets.rating.labels import write_labels
    from hoi_assets.rating.study import study_folder

    out = options.out.expanduser().resolve()
    table = write_labels(study_folder(home_folder(), options.name), out)
    print(f"{out}: {table.height} labelled pictures")
    print(f"set verifier.labels_folder to {out} in your profile to train the verifier on them")
    return 0


def score(options: argparse.Namespace) -> int:
    """`hoi score`: ends with 1 where not one picture could be scored."""
    from hoi_assets.cli.folder_scoring import score_folder
    from hoi_assets.evaluation import folder_scores as folder
    from hoi_assets.settings import load_settings

    made = score_folder(
        load_settings(),
        home_folder(),
        options.images.expanduser(),
        options.prompts.expanduser(),
        out=options.out.expanduser() if options.out else None,
        reference=options.reference.expanduser() if options.reference else None,
        log=print,
    )
    folder.print_summary(made.summary, made.failed, made.reference)
    for line in made.complaints:
        print(f"NOT AS EXPECTED: {line}", file=sys.stderr)
    print(f"scores: {made.table}\nreproduction record: {made.record}")
    return 1 if made.summary.is_empty() else 0


def _line() -> "Line":
    from hoi_assets.definitions import build_line

    return build_line()


def _chosen(line: "Line", options: argparse.Namespace) -> tuple[str, ...]:
    platform = line.platform
    if options.all:
        return tuple(key for own in platform.partition_keys.values() for key in own)
    return platform.chosen(options.partitions) or platform.run_keys()


def _dagster_home() -> Path:
    """DAGSTER_HOME as the user set it, else `<home>/dagster` with this repository's config."""
    from hoi_assets.defs.resources import prepare_dagster_home

    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(prepare_dagster_home(home_folder()))
    return Path(os.environ["DAGSTER_HOME"])


def _instance() -> "AbstractContextManager[DagsterInstance]":
    from dagster import DagsterInstance

    _dagster_home()
    return DagsterInstance.get()


if __name__ == "__main__":
    sys.exit(main())
