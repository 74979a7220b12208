"""Both pipelines with little work in each step, DetailScribe with very small random models.

What is proved runs around the models; the same classes load, train and sample. SDXL is the stored
one: of pictures by random weights the verifier accepts none.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets_tests.llm.chat_server import Answer, Request, Server
from hoi_assets_tests.pipeline_fixture import SCENARIO, write_profile
from proofs.children import start

CATEGORY = "power_sphere"
BATCH = 4
CONCURRENCY = 2
SIDE = 64
PAIRS = 64
# `hoi run` of each makes its own pipeline's assets, the scorecards and the report.
PIPELINES = {"ppv": CATEGORY, "detailscribe": SCENARIO}


def make_models(folder: Path) -> None:
    """SD3 and ViLT-VQA of a few thousand random weights, in folders of these names."""
    import torch

    from hoi_assets.tinyworld.weights import vqa
    from hoi_assets_tests.engines.small_sd3 import make_sd3

    make_sd3(folder / "sd3")
    torch.manual_seed(3)
    vqa.save(vqa.build(vqa.tokenizer(), vqa.Size(32, 2, 2)), folder / "vqa")


def small_profile(folder: Path, endpoint: str) -> Path:
    """A profile on models that it makes in `folder`.

    Args:
        endpoint: of the rewriter and the judge.
    """
    models = folder / "models"
    child = start(make_models, (models,), folder / "models.log")
    if child.wait():
        raise RuntimeError(f"no models: {child.printed[-500:]}")
    calls = {"endpoint": endpoint, "model": "m", "concurrency": CONCURRENCY}
    size = {"width": SIDE, "height": SIDE, "batch_size": BATCH}
    return write_profile(
        folder,
        models={
            "benchmark": {"source": str(models / "sd3")},
            "critic": {"source": str(models / "vqa")},
        },
        lora={"max_train_steps": 6, "train_batch_size": 2},
        sampling={"num_inference_steps": 3, "batch_size": BATCH},
        redenoising={"num_inference_steps": 4, "switch_steps": [0, 1, 2], **size},
        verifier={
            "train_steps": 4,
            "training_pairs": PAIRS,
            "generator_view_share": 0.0,
            "target_precision": 0.05,
        },
        evaluation={"general_prompts": 2, "hoi_prompts_per_category": 1, "reference_pool": None},
        rewriter=calls,
        judge=calls,
    )


def run_pipeline(arguments: Sequence[str], noted: Path) -> None:
    """The command `hoi`, which also notes each picture that a model draws in a file."""
    from hoi_assets.cli.main import main
    from hoi_assets.store.images import ImageStore

    put = ImageStore.put
    file = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def noting(self: ImageStore, image: Any) -> str:
        digest = put(self, image)
        if sys._getframe(1).f_code.co_name == "_store_all":
            os.write(file, f"{digest}\n".encode())
        return digest

    ImageStore.put = noting  # type: ignore[method-assign]
    sys.exit(int(main(list(arguments))))


def twice(noted: Path) -> int:
    """How many of the noted pictures had been drawn before."""
    lines = noted.read_text(encoding="utf-8").split() if noted.exists() else []
    return len(lines) - len(set(lines))


@dataclass
class Endpoint:
    """A rewriter and a judge on loopback, which count what they are asked."""

    server: Server
    asked: Counter[str]

    def twice(self) -> int:
        """How many requests had been made before."""
        return sum(self.asked.values()) - len(self.asked)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Serve while the block runs."""
    asked: Counter[str] = Counter()

    def answer(request: Request, number: int) -> Answer:
        text = json.dumps(request, sort_keys=True)
        asked[text] += 1
        if "rating" in text:
            return Answer(json.dumps({"rating": 1 + len(text) % 5, "shows": True}))
        return Answer(json.dumps({"prompt": f"a hand on a table holds a mug {len(text)}"}))

    server = Server(answer)
    try:
        yield Endpoint(server, asked)
    finally:
        server.close()
