"""`hoi export`: published versions as files that other tools open."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hoi_assets.cli import completion
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import log_to_stderr, print_json
from hoi_assets.cli.project import open_store_of_any_profile

if TYPE_CHECKING:
    from hoi_assets.export.c2pa import Signer
    from hoi_assets.export.folder import Exported
    from hoi_assets.progress import Log

PANEL = "Stored data"

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where to: a folder that is not there yet.")
]
Push = Annotated[
    str | None,
    typer.Option(
        metavar="OWNER/NAME",
        help="Upload to this repository of the Hugging Face hub as well; needs HF_TOKEN. An upload "
        "that was interrupted goes on when run again.",
    ),
]
Public = Annotated[
    bool, typer.Option("--public", help="Make the repository public where it is new.")
]
AsJson = Annotated[
    bool,
    json_option(
        "an object with folder, files (count), made (false: it was there), and url or null"
    ),
]
Pool = Annotated[
    Path | None,
    typer.Option(help="Pool of rendered scenes; default: instance_images.pool of the profile."),
]

Certificate = Annotated[
    Path | None,
    typer.Option(
        "--c2pa-certificate",
        metavar="PEM",
        help="Sign every picture with a C2PA manifest: the certificate with its chain; needs the "
        "extra c2pa. Signed exports of equal versions differ in their bytes.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--c2pa-key", metavar="PEM", help="The certificate's private key."),
]

commands = typer.Typer(
    help="Files that other tools open. An export is complete or absent; run again, it goes on "
    "where it was interrupted."
)


@commands.command()
def dataset(
    folder: Folder,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
    certificate: Certificate = None,
    key: Key = None,
    profile: Profile = None,
) -> None:
    """The dataset for Hugging Face `datasets`: Parquet with pictures, a card, and what was left
    out."""
    from hoi_assets.export.dataset import export_dataset

    _do(
        lambda to, log: export_dataset(
            open_store_of_any_profile(), to, log, _signer(certificate, key)
        ),
        folder,
        "dataset",
        push,
        public,
        as_json,
    )


@commands.command()
def webdataset(
    folder: Folder,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
    certificate: Certificate = None,
    key: Key = None,
    profile: Profile = None,
) -> None:
    """The dataset as WebDataset shards (.tar), with what was left out."""
    from hoi_assets.export.shards import export_webdataset

    _do(
        lambda to, log: export_webdataset(
            open_store_of_any_profile(), to, log, _signer(certificate, key)
        ),
        folder,
        "dataset",
        push,
        public,
        as_json,
    )


@commands.command()
def coco(
    folder: Folder,
    pool: Pool = None,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Renders of the tiny world with COCO annotations: masks, boxes, joints, captions."""
    from hoi_assets.export.coco import export_coco

    _do(lambda to, log: export_coco(_pool(pool), to, log), folder, "dataset", push, public, as_json)


@commands.command()
def triples(
    folder: Folder,
    pool: Pool = None,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """Triples for training correctors: flawed picture, critique, accepted picture."""
    from hoi_assets.export.triples import export_triples

    _do(
        lambda to, log: export_triples(open_store_of_any_profile(), to, _pool(pool), log),
        folder,
        "dataset",
        push,
        public,
        as_json,
    )


@commands.command()
def lora(
    folder: Folder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Hand-pose categories, finetuned_model; default: all that are published.",
            show_default=False,
            autocompletion=completion.partitions,
        ),
    ] = None,
    push: Push = None,
    public: Public = False,
    as_json: AsJson = False,
    profile: Profile = None,
) -> None:
    """LoRAs in the layouts of diffusers and of Kohya's scripts, ComfyUI and Forge, with cards."""
    from hoi_assets.export.loras import export_loras
    from hoi_assets.settings import load_settings

    _do(
        lambda to, log: export_loras(
            open_store_of_any_profile(), load_settings(), to, names or (), log
        ),
        folder,
        "model",
        push,
        public,
        as_json,
    )


def _do(
    make: "Callable[[Path, Log], Exported]",
    folder: Path,
    repo_type: Literal["dataset", "model"],
    push: str | None,
    public: bool,
    as_json: bool,
) -> None:
    """Make an export, upload it where asked, and say so."""
    from hoi_assets.export import hub
    from hoi_assets.settings import expand_user

    if push:
        hub.check(push)  # before the work
    made = make(expand_user(folder), log_to_stderr)
    url = hub.push(made, push, repo_type, private=not public) if push else None
    if as_json:
        print_json({"folder": made.folder, "files": len(made.files), "made": made.made, "url": url})
        return
    state = "exported" if made.made else "was exported before, unchanged"
    print(f"{made.folder}: {state}, {len(made.files)} files")
    if url:
        print(f"uploaded to {url}")


def _signer(certificate: Path | None, key: Path | None) -> "Signer | None":
    from hoi_assets.errors import HoiError
    from hoi_assets.export.c2pa import Signer
    from hoi_assets.settings import expand_user

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise HoiError("a C2PA manifest needs both files", "give --c2pa-certificate and --c2pa-key")
    return Signer(expand_user(certificate), expand_user(key))


def _pool(pool: Path | None) -> Path:
    from hoi_assets.settings import expand_user, load_settings, resolve_path

    return expand_user(pool) if pool else resolve_path(load_settings().instance_images.pool)
