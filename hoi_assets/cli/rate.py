"""`hoi rate`: human ratings of published pictures."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from hoi_assets.cli import completion
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import print_json

# Copies, as the modules that have them import polars.
Suite = Literal["hoi", "general", "interacting", "labels"]  # = rating.published_images.SUITES
HOST, PORT = "127.0.0.1", 8765  # = rating.page.HOST, PORT

StudyName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the study.", autocompletion=completion.studies),
]

commands = typer.Typer(help="Human ratings of published pictures: studies, rating pages, labels.")


@commands.command()
def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new study.")],
    suite: Annotated[
        Suite,
        typer.Option(
            help="hoi, general: evaluation images. interacting: what each method of DetailScribe's "
            "pipeline chose. labels: candidates, to be accepted or rejected."
        ),
    ],
    mode: Annotated[
        Literal["rating", "pairwise"],
        typer.Option(
            help="rating: one picture, 1 to 5. pairwise: which of two. Labels are always yes or no."
        ),
    ] = "rating",
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Only these methods.")] = None,
    prompts: Annotated[
        int | None, typer.Option(help="How many prompts, chosen by hash; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of that choice and of every order.")] = 0,
    profile: Profile = None,
) -> None:
    """Make a study of published pictures."""
    from hoi_assets.cli.project import known_partitions, open_store_of_any_profile
    from hoi_assets.rating.published_images import LABELS, make_suite_study
    from hoi_assets.rating.shared_studies import fetch_studies, share_study
    from hoi_assets.rating.study import study_folder

    store = open_store_of_any_profile()
    fetch_studies(store.remote, name)
    study = make_suite_study(
        store,
        study_folder(store.home, name),
        suite,
        "verify" if suite == LABELS else mode,
        methods=methods.split(",") if methods else None,
        prompts=prompts,
        seed=seed,
        known=known_partitions(store),
    )
    share_study(store.remote, study_folder(store.home, name))
    print(f"study {name}: {len(study.items)} {study.mode} items")
    if study.equal:
        print(f"  {len(study.equal)} pairs are the same picture and are not shown")
    for one in study.left_out:
        print(f"  picture {one.number} is left out: {one.reason}")
    print(f"  hoi rate links {name} RATER...   then   hoi rate serve {name}")


@commands.command()
def links(
    name: StudyName,
    raters: Annotated[list[str], typer.Argument(metavar="RATER", help="Pseudonyms, e.g. rater-1.")],
    url: Annotated[str, typer.Option(help="URL of the page.")] = f"http://{HOST}:{PORT}",
    profile: Profile = None,
) -> None:
    """A new secret link for each rater; an earlier link stops working, votes stay."""
    from hoi_assets.cli.project import open_remote
    from hoi_assets.rating.raters import make_links
    from hoi_assets.rating.shared_studies import fetch_studies, share_study
    from hoi_assets.rating.study import study_folder
    from hoi_assets.settings import home_folder

    remote, folder = open_remote(), study_folder(home_folder(), name)
    fetch_studies(remote, name)
    made = make_links(folder, raters, url)
    share_study(remote, folder)
    for rater, link in made.items():
        print(f"{rater}  {link}")


@commands.command()
def serve(
    name: StudyName,
    port: Annotated[int, typer.Option(help="Port of the page.")] = PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback: not encrypted.")
    ] = HOST,
    profile: Profile = None,
) -> None:
    """Serve a study's page; Ctrl+C stops it."""
    from hoi_assets.cli.project import open_remote
    from hoi_assets.rating.page import serve
    from hoi_assets.rating.shared_studies import serving
    from hoi_assets.rating.study import study_folder
    from hoi_assets.settings import home_folder

    folder, log = study_folder(home_folder(), name), partial(print, flush=True)
    with serving(open_remote(), folder, log) as saved:
        serve(folder, host, port, log, saved)


@commands.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Name of the study; default: all.",
            show_default=False,
            autocompletion=completion.studies,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        json_option(
            "a list of studies, objects with study and raters, a list of objects with rater, "
            "answered and of"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """How many answers each rater gave."""
    from hoi_assets.cli.project import open_remote
    from hoi_assets.rating.shared_studies import fetch_studies
    from hoi_assets.rating.study import study_folder, study_folders
    from hoi_assets.rating.vote_tables import count_answers
    from hoi_assets.settings import home_folder

    home = home_folder()
    fetch_studies(open_remote())
    folders = [study_folder(home, name)] if name else study_folders(home)
    raters = {
        folder.name: count_answers(folder).select("rater", "answered", "of").to_dicts()
        for folder in folders
    }
    if as_json:
        print_json([{"study": study, "raters": rows} for study, rows in raters.items()])
        return
    if not folders:
        print("no study yet; `hoi rate make` makes one")
    for study, rows in raters.items():
        print(study)
        for row in rows:
            print(f"  {row['rater']}  {row['answered']} of {row['of']} answers")
        if not rows:
            print(f"  no rater yet; `hoi rate links {study} RATER` makes a link")


@commands.command()
def labels(
    name: StudyName,
    out: Annotated[Path, typer.Option(help="Folder that labels.csv and the pictures go to.")],
    profile: Profile = None,
) -> None:
    """Write the labels that people gave (a study of suite labels) and their pictures to a folder.

    Set verifier.labels_folder to it in your profile, and `hoi run` trains the verifier on them.
    """
    from hoi_assets.cli.project import open_remote
    from hoi_assets.rating.labels import write_labels
    from hoi_assets.rating.shared_studies import fetch_studies
    from hoi_assets.rating.study import study_folder
    from hoi_assets.settings import expand_user, home_folder

    fetch_studies(open_remote(), name)
    out = expand_user(out).resolve()
    table = write_labels(study_folder(home_folder(), name), out)
    print(f"{out}: {table.height} labelled pictures")
    print(f"set verifier.labels_folder to {out} in your profile to train the verifier on them")
