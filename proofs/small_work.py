"""A little of everything that is written to a home, in a second or two, and the same each time.

Done again after it was broken off, it ends with the same content.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hoi_assets.engines.image_cache import NewImage, get_or_generate
from hoi_assets.engines.sdxl.checkpoints import Checkpoints
from hoi_assets.llm.reply import Reply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.publishing import evidence
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import read_study, showings, study_folder
from hoi_assets.rating.study_making import StudyImage, make_study
from hoi_assets.rating.vote_tables import votes_table
from hoi_assets.rating.votes import Vote, VoteFile, read_lines
from hoi_assets.store import catalogue
from hoi_assets.store.pruning import prune
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Store

PROFILE, STUDY, RATER = "proof", "proof", "anna"
PICTURES, SIDE = 4, 16
BATCH = 2
VOTES = 3
PARTITION = "hook"
ENVIRONMENT = {
    "batch_size": BATCH,
    "dtype": "float32",
    "device": "cpu",
    "threads": 1,
    "cpu_capability": "none",
}
WHEN = "2025-01-02T03:04:05.678+00:00"


def small_work(home: Path) -> None:
    """Ask, draw, train, publish twice, quarantine, vote, query and prune."""
    store = Store(home, PROFILE)
    _ask(store)
    pixels = _draw(store)
    trained(store, "lora", "4f", _train)
    for number in range(2):
        _publish(store, number, pixels)
    with store.stage("pictures", PARTITION) as staging:
        staging.write_table("rows", pl.DataFrame({"pixels": pixels[:1]}))
        store.quarantine(staging, {"expectation": "rows >= 4"})
    _vote(store, home)
    counted = catalogue.query(store, "select count(*) as n from pictures")
    assert counted["n"].to_list() == [PICTURES]
    prune(store, keep=1)
    store.ledger.close()


def fault_of_votes(home: Path) -> str:
    """Why the votes are not those that were cast; empty where they are."""
    table = votes_table(study_folder(home, STUDY)).filter(status="accepted")
    scores = table.sort("line")["score"].to_list()
    return "" if scores == list(range(1, VOTES + 1)) else f"votes in force: {scores}"


def _ask(store: Store) -> None:
    replies = ReplyCache[str](store.ledger, "rewriting", str, str, log=lambda _: None)

    def request(missing: Mapping[str, str], on_reply: Any) -> dict[str, Reply[str]]:
        found = {key: Reply(f"{text}, in detail", None, "m") for key, text in missing.items()}
        for key, reply in found.items():
            on_reply(key, reply)
        return found

    prompts = {f"{number:016x}": f"hand {number}" for number in range(PICTURES)}
    replies.get_or_request(prompts, request)


def _draw(store: Store) -> list[str]:
    from PIL import Image

    wanted = {f"{number:064x}": number for number in range(PICTURES)}

    def generate(todo: Any) -> Any:
        for number in todo:
            shape = (SIDE, SIDE, 3)
            noise = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
            image = Image.fromarray(noise)
            yield NewImage(f"{number:064x}", number % BATCH, image, None, ENVIRONMENT, 0.1)

    drawn = get_or_generate(store, wanted, generate, BATCH, "pictures", lambda _: None)
    return [str(one.pixels) for one in drawn.values()]


def _train(work: Path, result: Path) -> None:
    """Four steps with a checkpoint after each second one."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = torch.nn.Parameter(torch.ones(4))
    parameters, best = {"lora": weights}, {"lora": torch.ones(4)}
    optimizer = torch.optim.AdamW([weights], lr=0.1)
    checkpoints = Checkpoints(work, "4f", parameters, optimizer, best, lambda _: None)
    state = checkpoints.load()
    while state.step < 6:
        optimizer.zero_grad()
        (weights**2).sum().backward()
        optimizer.step()
        state.step += 1
        if state.step % 2 == 0:
            checkpoints.save(state)
    save_file({"lora": weights.detach()}, result / "weights.safetensors")


def _publish(store: Store, number: int, pixels: list[str]) -> None:
    with store.lock("pictures", PARTITION), store.stage("pictures", PARTITION) as staging:
        staging.write_table("rows", pl.DataFrame({"number": number, "pixels": pixels}))
        staging.write_json("facts", {"number": number})
        found = evidence.Evidence(GateResult(()), {"rows": len(pixels)})
        evidence.keep(store, "pictures", PARTITION, staging.version(), found, {})
        published = store.publish(staging, {"number": number}, None)
    store.ledger.record(
        {
            "stage": "pictures",
            "partition": PARTITION,
            "row_id": name,
            "status": "accepted",
            "version": published.version,
        }
        for name in pixels
    )


def _vote(store: Store, home: Path) -> None:
    folder = study_folder(home, STUDY)
    pictures = [
        StudyImage(f"hand {number}", "plain", path)
        for number, path in enumerate(sorted((home / "images").rglob("*.png")))
    ]
    study = make_study(folder, "rating", pictures, repeat_share=0.0)
    if not (folder / "raters.json").exists():
        make_links(folder, [RATER])
    votes = VoteFile(folder)
    cast = {line.vote.place for line in read_lines(folder, study) if line.vote is not None}
    study = read_study(folder)
    for shown in showings(study, RATER)[:VOTES]:
        if shown.place not in cast:
            question = study.questions[0].key
            facts = (shown.item.item, shown.repeat, question, shown.place, shown.on_left)
            votes.add(Vote(WHEN, RATER, *facts, shown.place))
    votes.close()


def told_small_work(home: Path) -> None:
    """The same; what is wrong is told as the command `hoi` tells it."""
    from hoi_assets.cli.main import told

    sys.exit(int(told(lambda: small_work(home))))
