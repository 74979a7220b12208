"""Where the tiny weights lie, how a model folder is replaced, and fresh weights for all of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from hoi_assets.progress import Log
from hoi_assets.settings import ROOT

WEIGHTS = ROOT / "data" / "models" / "tiny"
# Models of the coming edition, which no profile uses yet.
NEXT = ROOT / "data" / "models" / "next"
TRAINING = ROOT / "data" / "training"
WORLD = ROOT / "data" / "world"


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder beside `folder`, then put it in its place."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    _forget_paths(fresh)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _forget_paths(folder: Path) -> None:
    """Take out of the configurations where on this machine a model was loaded from."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            path.write_text(text, encoding="utf-8")


def write_fresh(out: Path, seed: int = 0, log: Log = print) -> None:
    """Write untrained weights of every model in its final configuration to `out/<model>`.

    They load and run like the trained ones, in a second or two, and draw noise.
    """
    import torch

    from hoi_assets.tinyworld.weights import clip, examiner, image_reward, sd3, sdxl, vilt, vqa
    from hoi_assets.tinyworld.weights.tokenizers import bert_tokenizer, clip_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, asked = bert_tokenizer(), vqa.tokenizer()
        writers: dict[str, Callable[[Path], None]] = {
            "sdxl": lambda folder: sdxl.save(sdxl.build_pipeline(), folder),
            "clip": lambda folder: clip.save(clip.build(clip_tokenizer()), folder),
            "vilt": lambda folder: vilt.save(vilt.build(words), folder),
            "image_reward": lambda folder: image_reward.save(image_reward.build(words), folder),
            "examiner": lambda folder: examiner.save(examiner.build(), folder),
            "sd3": lambda folder: sdxl.save(sd3.build_pipeline(), folder),
            "vqa": lambda folder: vqa.save(vqa.build(asked), folder),
            "component_examiner": lambda folder: vqa.save(vqa.build(asked), folder),
        }
        for name, write in writers.items():
            replace_folder(out / name, write)
            log(f"{out / name}: fresh weights, seed {seed}")
