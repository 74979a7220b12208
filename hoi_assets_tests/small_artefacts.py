"""Makes the versions of both pipelines up to their images, and one of everything else that
libraries write into versions, as small as can be; prints the hashes as JSON.

`python -m hoi_assets_tests.small_artefacts OUT MODELS`: an empty folder, and one with the folders
`vilt`, `sdxl`, `sd3` and `vqa`.
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
from hoi_assets_tests.pipeline_fixture import write_profile

CATEGORY, SCENARIO = "hook", "functional"
STAGES = {
    "base_prompt_taxonomy": None,
    "detailed_prompts": CATEGORY,
    "instance_images": CATEGORY,
    "category_loras": CATEGORY,
    "candidate_images": CATEGORY,
    "interacting_prompts": SCENARIO,
    "interaction_decompositions": SCENARIO,
    "initial_images": SCENARIO,
    "image_critiques": SCENARIO,
    "refined_images": SCENARIO,
    "baseline_images": SCENARIO,
}


def small_profile(folder: Path, models: Path) -> Path:
    """The tiny profile on small models, with as few steps and pictures as the stages take."""
    sides = {"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 2}
    names = {"base": "sdxl", "benchmark": "sd3", "critic": "vqa", "component_examiner": "vqa"}
    return write_profile(
        folder,
        models={name: {"source": str(models / own)} for name, own in names.items()},
        sampling=sides,
        candidates={"per_prompt": 1},
        interacting={"rows_per_scenario": 2},
        redenoising={**sides, "switch_steps": [0, 1]},
        critic={"threshold": 0.99},
        lora={"max_train_steps": 2, "num_class_images": 2, "train_batch_size": 1},
    )


def staged(out: Path, models: Path) -> dict[str, Any]:
    """Versions of the assets up to the images of both pipelines."""
    from hoi_assets.publishing.execution import execute

    project = load_project(str(small_profile(out, models)), out / "line")
    platform, found = project.platform, {}
    for name, partition in STAGES.items():
        stage = project.graph[name]
        context = project.graph.context(
            stage, partition, platform.settings, platform.store, log=lambda _: None
        )
        execution = execute(project.graph, stage, context)
        assert execution.published is not None, (name, execution.found.gate.summary)
        found[name] = execution.published.version
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
    out, models = map(Path, sys.argv[1:])
    import torch

    torch.set_num_threads(1)
    found = {
        **staged(out, models),
        "verifier": verifier(out / "home", models / "vilt"),
        "lora": lora(out, models / "sdxl"),
        "plots": plots(),
    }
    print(json.dumps(found))
