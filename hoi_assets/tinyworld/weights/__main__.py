"""Make the tiny weights: `init` writes untrained ones, `train` trains, `examine` and `round-trips`
measure, `pages` generates pictures for manual labels."""

import argparse
import sys
from functools import partial
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT
from hoi_assets.tinyworld.weights.manual_labels import FOLDER, generate_pages
from hoi_assets.tinyworld.weights.store import NEXT, TRAINING, WEIGHTS, WORLD, write_fresh


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hoi_assets.tinyworld.weights", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="write untrained weights of every model")
    init.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the models")
    init.add_argument("--seed", type=int, default=0)
    train = commands.add_parser("train", help="train models; interrupted, it resumes")
    train.add_argument("names", nargs="*", help="models to train, default all of this edition")
    train.add_argument("--max-minutes", type=float, help="outer stop of each training")
    train.add_argument(
        "--go-on", action="store_true", help="start from the stored weights, not from fresh ones"
    )
    train.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if any"
    )
    train.add_argument(
        "--interactions", type=Path, help="folder of the interaction scenes, default the world"
    )
    examine = commands.add_parser("examine", help="measure the pictures of the stored SDXL")
    pages = commands.add_parser("pages", help="generate pictures for manual labels")
    pages.add_argument("--pool", type=Path, default=ROOT / "data" / "pool", help="of the captions")
    pages.add_argument("--folder", type=Path, default=FOLDER, help="where pages and table go")
    pages.add_argument("--count", type=int, default=192)
    pages.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the models")
    trips = commands.add_parser(
        "round-trips", help="measure an autoencoder on held-out pictures, beside the present one"
    )
    trips.add_argument("--vae", type=Path, default=NEXT / "vae16", help="folder of it")
    trips.add_argument("--present", type=Path, default=WEIGHTS / "sdxl", help="pipeline to compare")
    trips.add_argument("--world", type=Path, default=WORLD, help="folder of the pictures")
    trips.add_argument("--sheet", type=Path, help="picture of round trips to write")
    for command in (train, examine):
        command.add_argument("--world", type=Path, default=WORLD, help="folder of the pictures")
        command.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the models")
        command.add_argument("--state", type=Path, default=TRAINING, help="folder of checkpoints")
    options = parser.parse_args(arguments)
    log = partial(print, flush=True)
    try:
        if options.command == "init":
            write_fresh(options.out, options.seed, log)
            return 0
        if options.command == "pages":
            generate_pages(options.weights, options.pool, options.folder, options.count)
            return 0
        if options.command == "round-trips":
            from hoi_assets.tinyworld.weights.round_trips import compare_round_trips

            compare_round_trips(options.vae, options.present, options.world, options.sheet, log)
            return 0
        from hoi_assets.engines.device import resolve_device
        from hoi_assets.tinyworld.weights.run import Run
        from hoi_assets.tinyworld.weights.train import add_truth_rates
        from hoi_assets.tinyworld.weights.train import train as train_models

        if options.command == "examine":
            add_truth_rates(Run(options.world, options.out, options.state, log))
            return 0
        run = Run(
            options.world,
            options.out,
            options.state,
            log,
            options.max_minutes,
            go_on=options.go_on,
            interactions=options.interactions,
            device=resolve_device(options.device),
        )
        train_models(options.names, run)
    except HoiError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
