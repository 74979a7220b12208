"""The real pipelines, each asset of which copies its version in force and may spoil the copy.

Nothing else is substituted: gate, publishing, Dagster and its daemon are the real ones. What is
planted is read from `<home>/planted.json`, {"asset" or "asset/partition": name of a `Defect`}, when
an asset is computed, so that one server can be given one defect after the other.

`python -m proofs.doctored run --force hook` is `hoi run --force hook` over these pipelines;
`dagster dev -m proofs.doctored` serves them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.project import Project, load_project, published_below
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.store.versions import Staging, place_name
from proofs.defects import DEFECTS
from proofs.versions import copy_version

PLANTED = "planted.json"


def plant(home: Path, planted: Mapping[str, str]) -> None:
    """From now on these places compute spoiled copies; any other a true one."""
    (home / PLANTED).write_text(json.dumps(dict(planted)), encoding="utf-8")


def copy_in_force(context: StageContext, staging: Staging) -> Result:
    """An asset's function: the version in force again, spoiled where something is planted."""
    published = context.store.require(context.asset, context.partition)
    copy_version(published.path, staging.path)
    file = context.store.home / PLANTED
    planted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    name = planted.get(place_name(context.asset, context.partition))
    if name is not None:
        DEFECTS[name].spoil(staging.path)
    return Result()


@contextmanager
def doctored() -> Iterator[None]:
    """Inside, `load_project` binds every asset to `copy_in_force`."""
    functions = [_declared(asset) for asset in published_below("hoi_assets.defs")]
    stages = [stage_of(asset) for asset in published_below("hoi_assets.defs")]
    try:
        for function, stage in zip(functions, stages, strict=True):
            function.stage = replace(stage, function=copy_in_force)
        yield
    finally:
        for function, stage in zip(functions, stages, strict=True):
            function.stage = stage


def _declared(asset: dg.AssetsDefinition) -> Any:
    """The function whose attribute `stage` `stage_of` reads."""
    compute: Any = asset.op.compute_fn
    return compute.decorated_fn


def doctored_project(profile: Path | None = None, home: Path | None = None) -> Project:
    """Both pipelines over these functions."""
    with doctored():
        return load_project(None if profile is None else str(profile), home)


@dg.definitions
def defs() -> dg.Definitions:
    return all_definitions(doctored_project())


if __name__ == "__main__":
    from hoi_assets.cli.main import main

    with doctored():
        sys.exit(main())
