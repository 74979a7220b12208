"""Makes one of everything that libraries write into versions, and prints the hashes as JSON.

`python -m hoi_assets_tests.small_artefacts OUT VILT SDXL`: an empty folder, and those of models.
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.defs.project import load_project
from hoi_assets.hashing import digest, file_digests
from hoi_assets.settings import ModelRef, Verifier
from hoi_assets.store.trained import trained

CATEGORY, SCENARIO = "hook", "functional"
STAGES = {
    "base_prompt_taxonomy": None,
    "detailed_prompts": CATEGORY,
    "instance_images": CATEGORY,
    "interacting_prompts": SCENARIO,
    "interaction_decompositions": SCENARIO,
}


def staged(home: Path) -> dict[str, Any]:
    """Versions of the assets that need no model, under the profile `tiny`."""
    from hoi_assets.publishing.execution import execute

    project = load_project(home=home)
    platform, found = project.platform, {}
    for name, partition in STAGES.items():
        stage = project.graph[name]
        context = project.graph.context(
            stage, partition, platform.settings, platform.store, log=lambda _: None
        )
        published = execute(project.graph, stage, context).published
        found[name] = None if published is None else published.version
    return found


def verifier(home: Path, vilt: Path) -> dict[str, str]:
    """A verifier trained for a step, as the store keeps it."""
    from hoi_assets.engines.vilt.training import train_verifier
    from hoi_assets.engines.vilt.verifier import load_verifier, save_verifier
    from hoi_assets_tests.engines.vilt.test_training import make_pairs

    def train(work: Path, result: Path) -> None:
        pairs, config = make_pairs(16), Verifier(train_steps=1, batch_size=8)
        done = train_verifier(load_verifier(vilt), pairs, pairs, config, work, lambda _: None)
        save_verifier(done.verifier, result)

    return file_digests(trained(load_project(home=home).platform.store, "verifier", "k", train))


def lora(out: Path, sdxl: Path) -> dict[str, str]:
    """A LoRA trained for three steps."""
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets_tests.engines.sdxl.train_once import ACCUMULATING, train

    train(load_sdxl(ModelRef(source=str(sdxl))), out / "work", out / "lora", ACCUMULATING)
    return file_digests(out / "lora")


def plots() -> list[str]:
    """Plots of the report."""
    from hoi_assets.charts import loss_curve, reliability_diagram

    log = pl.DataFrame({"step": [1, 2, 3], "loss": [1234.5, 0.2, 0.1]})
    bins = {"head": ["fidelity"], "confidence": [0.4], "frequency": [0.5], "n": [9]}
    return [digest(loss_curve(log).hex()), digest(reliability_diagram(pl.DataFrame(bins)).hex())]


if __name__ == "__main__":
    out, vilt_folder, sdxl_folder = map(Path, sys.argv[1:])
    import torch

    torch.set_num_threads(1)
    found = {
        **staged(out / "home"),
        "verifier": verifier(out / "home", vilt_folder),
        "lora": lora(out, sdxl_folder),
        "plots": plots(),
    }
    print(json.dumps(found))
