"""Commands about one image: trace, replay."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.options import Profile, json_option
from hoi_assets.cli.output import print_json
from hoi_assets.cli.project import open_store, open_store_of_any_profile

if TYPE_CHECKING:
    from PIL import Image

PANEL = "One image"

ImageId = Annotated[
    str, typer.Argument(metavar="IMAGE_ID", help="Id of the image, or its first digits.")
]

commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def trace(
    image_id: ImageId,
    as_json: Annotated[
        bool, json_option("a list of steps, objects with step (its title) and facts (by name)")
    ] = False,
    profile: Profile = None,
) -> None:
    """One image's way from prompt to verdict."""
    from hoi_assets.cli.image_trace import trace_image

    steps = trace_image(open_store_of_any_profile(), image_id)
    if as_json:
        print_json([{"step": title, "facts": facts} for title, facts in steps])
        return
    for title, facts in steps:
        print(title)
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            print(f"  {name.ljust(width)}  {value}")


@commands.command(rich_help_panel=PANEL)
def replay(
    image_id: ImageId,
    out: Annotated[Path | None, typer.Option(help="Where to write the picture (PNG).")] = None,
    as_json: Annotated[
        bool,
        json_option(
            "an object with image_id, equal, largest_difference (0 to 255; null: the stored "
            "picture is gone), differences (recorded and now, by name) and out"
        ),
    ] = False,
    profile: Profile = None,
) -> None:
    """Draw one image again, alone; ends with 1 where the pixels differ."""
    from hoi_assets.cli.image_replay import replay_image
    from hoi_assets.settings import load_settings

    found = replay_image(open_store(), load_settings(), image_id)
    if out:
        _save_marked(found.image, out)
    if as_json:
        differences = {
            name: {"recorded": recorded, "now": now}
            for name, (recorded, now) in found.differences.items()
        }
        print_json(
            {
                "image_id": image_id,
                "equal": found.equal,
                "largest_difference": found.largest_difference,
                "differences": differences,
                "out": out,
            }
        )
    elif found.equal:
        print(f"{image_id}: drawn again alone, all pixels are equal")
    else:
        print(f"{image_id}: the pixels differ, {_by_how_much(found.largest_difference)}")
        for name, (recorded, now) in found.differences.items():
            print(f"  {name}: {recorded} when it was made, {now} now")
    if not found.equal:
        raise typer.Exit(ExitCode.PROBLEM)


def _save_marked(image: "Image.Image", path: Path) -> None:
    """Write a picture as PNG, with the mark of AI generation."""
    from hoi_assets.picture_marks import encode_marked
    from hoi_assets.store.disk import writing

    with writing(path):
        path.write_bytes(encode_marked(image))


def _by_how_much(largest_difference: int | None) -> str:
    if largest_difference is None:
        return "by how much is unknown: the stored picture is gone"
    return f"by at most {largest_difference} of 255"
