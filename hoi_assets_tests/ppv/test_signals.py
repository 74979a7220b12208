"""Signals beside the verifier: a vision endpoint on loopback asked about hands, held against labels
before it may reject."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.defs.ppv.verification import verified_pairs
from hoi_assets.evaluation.hand_judges import score_hands
from hoi_assets.evaluation.scorecards import SCORES
from hoi_assets.llm.hand_anatomy import EndpointAnatomy, ask_anatomy, parts_of
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.ppv.chosen_signals import chosen_signals
from hoi_assets.ppv.signals import Judged, apply_signals, describe_signals
from hoi_assets.ppv.verdicts import VERDICT_ROWS
from hoi_assets.publishing.asset import stage_of
from hoi_assets.settings import Anatomy, Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import PRICES, REPLY_COST, Answer, Request, Server

WHOLE = {"hands": [{"fingers": 5, "hidden": False, "defect": "none"}], "whole": True}
FAULTY = {"hands": [{"fingers": 6, "hidden": False, "defect": "extra_finger"}], "whole": False}
LABELLED = 20


def picture(bright: bool, seed: int) -> Image.Image:
    low = 150 if bright else 0
    noise = np.random.default_rng(seed).integers(low, low + 100, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def shown_pictures(request: Request) -> list[Image.Image]:
    parts = request["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def looks(request: Request, _: int) -> Answer:
    """Bright hands are whole, dark ones faulty; the brighter, the surer."""
    mean = float(np.asarray(shown_pictures(request)[0]).mean())
    reply = (WHOLE if mean > 128 else FAULTY) | {"confidence": 0.9}
    return Answer(json.dumps(reply))


@pytest.fixture
def server(chat_server: Any) -> Server:
    started: Server = chat_server("")
    started.behaviour = looks
    return started


def settings_with(server: Server, **options: Any) -> Settings:
    small = {"parts_per_side": 1, "timeout_s": 30, "concurrency": 2}
    chosen = {"model": "m", **small, **options}
    return load_settings("tiny").model_copy(
        update={"anatomy": Anatomy(endpoint=server.url, **chosen)}
    )


class World:
    """Labelled pictures, and four accepted candidates: two bright, two dark."""

    def __init__(self, folder: Path, label_is_brightness: bool) -> None:
        self.store = Store(folder)
        rows = [
            {
                "pair_id": f"{split}{number:02}",
                "split": split,
                "pixels": self.store.images.put(picture(number % 2 == 0, hash_of(split, number))),
                "fidelity": number % 2 == 0 if label_is_brightness else number % 4 < 2,
            }
            for split in ("validation", "test")
            for number in range(LABELLED)
        ]
        self.labelled = pl.DataFrame(rows)
        empty = dict.fromkeys(VERDICT_ROWS.schema)
        verdicts = [
            empty
            | {
                "image_id": f"{number:016x}",
                "pixels": self.store.images.put(picture(number < 2, 1000 + number)),
                "status": "accepted",
            }
            for number in range(4)
        ]
        self.verdicts = pl.DataFrame(verdicts, schema=VERDICT_ROWS.schema)
        self.store.images.flush()
        self.logged: list[str] = []

    def judge(self, settings: Settings) -> Judged:
        signals = chosen_signals(self.store, settings, self.logged.append)
        return apply_signals(signals, self.verdicts, self.labelled, self.logged.append)


def hash_of(split: str, number: int) -> int:
    return number + (500 if split == "test" else 0)


def test_endpoint_sees_the_whole_picture_and_overlapping_parts_of_it(server: Server) -> None:
    image = picture(True, 0)
    options = Anatomy(endpoint=server.url, model="m", parts_per_side=2, part_side=256)
    (said,) = ask_anatomy([ShownImage("p", lambda: image)], EndpointAnatomy(options))
    assert (said.p_whole, said.hands, said.defect, said.reason) == (0.9, 1, None, None)
    whole, *parts = shown_pictures(server.requests[0])
    assert np.array_equal(np.asarray(whole), np.asarray(image))
    assert [max(part.size) for part in parts] == [256] * 4
    schema = server.requests[0]["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["additionalProperties"] is False
    # Together the parts cover the picture, each more than a quarter of it.
    marks = np.zeros((60, 60), np.uint8)
    for number, part in enumerate(parts_of(Image.fromarray(marks + 1), 2, 36)):
        assert part.size == (36, 36), number
    assert list(parts_of(image, 1, 256)) == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (WHOLE | {"confidence": 2.0}, "less than or equal to 1"),
        (FAULTY | {"whole": True, "confidence": 0.9}, "whole is true, and a hand has the defect"),
        (WHOLE | {"whole": False, "confidence": 0.9}, "whole is false, and no hand has a defect"),
        (WHOLE | {"confidence": 0.9, "why": "x"}, "Extra inputs"),
        ("It looks fine.", "no JSON object"),
    ],
)
def test_reply_that_cannot_be_used_is_asked_again_and_is_never_a_value(
    chat_server: Any, reply: Any, told: str
) -> None:
    started = chat_server(reply)
    options = Anatomy(endpoint=started.url, model="m", parts_per_side=1, max_attempts=2)
    image = picture(True, 0)
    (said,) = ask_anatomy([ShownImage("p", lambda: image)], EndpointAnatomy(options))
    assert said.p_whole is None and told in (said.reason or "")
    assert told in json.dumps(started.requests[1]["messages"][-1])


def test_picture_without_a_hand_has_no_value(chat_server: Any) -> None:
    started = chat_server({"hands": [], "whole": True, "confidence": 1.0})
    options = Anatomy(endpoint=started.url, model="m", parts_per_side=1)
    image = picture(True, 0)
    (said,) = ask_anatomy([ShownImage("p", lambda: image)], EndpointAnatomy(options))
    assert (said.p_whole, said.reason) == (None, "no_hand: it sees none")


def test_signal_that_agrees_with_the_labels_rejects_and_says_how_well_it_agrees(
    server: Server, tmp_path: Path
) -> None:
    world = World(tmp_path, label_is_brightness=True)
    settings = settings_with(server, gate=True, **PRICES)
    judged = world.judge(settings)
    assert judged.verdicts["status"].to_list() == ["accepted"] * 2 + ["rejected"] * 2
    assert judged.verdicts["reason"].to_list() == [None, None] + ["low_anatomy"] * 2
    (quality,) = judged.quality.iter_rows(named=True)
    assert quality["gates"] and quality["auc"] == quality["accuracy"] == quality["precision"] == 1
    assert quality["validation_images"] == quality["test_images"] == LABELLED
    assert quality["accuracy_low"] < 1 and quality["missing"] == 0
    assert judged.values["value"].to_list() == pytest.approx([0.9, 0.9, 0.1, 0.1])
    assert judged.values["note"].to_list() == [None, None, "extra_finger", "extra_finger"]
    assert judged.values["cost_usd"].to_list() == pytest.approx([REPLY_COST] * 4)
    assert "Anatomy rejects below its threshold: AUC 1.00" in describe_signals(judged.quality)
    # Each picture was asked about once, and is not asked about again.
    assert len(server.requests) == 2 * LABELLED + 4
    assert world.judge(settings).verdicts.equals(judged.verdicts)
    assert len(server.requests) == 2 * LABELLED + 4


def test_signal_that_does_not_tell_rejects_nothing_though_it_is_set_to(
    server: Server, tmp_path: Path
) -> None:
    world = World(tmp_path, label_is_brightness=False)
    judged = world.judge(settings_with(server, gate=True))
    assert set(judged.verdicts["status"]) == {"accepted"} and not judged.values["rejects"].any()
    assert not judged.quality["gates"][0] and judged.quality["auc"][0] == pytest.approx(0.5)
    assert "is recorded and rejects nothing" in describe_signals(judged.quality)
    assert any("does not distinguish good from bad" in line for line in world.logged)


def test_signal_that_is_not_set_to_gate_is_recorded_and_measured_only(
    server: Server, tmp_path: Path
) -> None:
    world = World(tmp_path, label_is_brightness=True)
    judged = world.judge(settings_with(server))
    assert judged.verdicts.equals(world.verdicts)
    assert judged.quality["auc"][0] == 1 and not judged.quality["gates"][0]


def test_empty_budget_rejects_nothing_and_says_why(server: Server, tmp_path: Path) -> None:
    world = World(tmp_path, label_is_brightness=True)
    settings = settings_with(server, gate=True, budget_usd=0.0, **PRICES)
    judged = world.judge(settings)
    assert server.requests == []
    assert judged.verdicts.equals(world.verdicts)
    assert all(reason.startswith("budget:") for reason in judged.values["reason"])
    assert judged.quality["missing"][0] == 2 * LABELLED and not judged.quality["gates"][0]
    assert "agreement with labels is not known" in describe_signals(judged.quality)


def test_labels_are_read_only_where_a_signal_is_set(server: Server) -> None:
    stage = stage_of(verified_pairs)
    assert "verifier_training_pairs" not in stage.bound(load_settings("tiny")).deps
    assert "verifier_training_pairs" in stage.bound(settings_with(server)).deps


def test_evaluation_images_with_hands_are_scored_and_others_left_out(
    server: Server, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    pixels = [
        store.images.put(picture(bright, number)) for number, bright in enumerate((True, False))
    ]
    store.images.flush()
    row = {"method": "base", "category": "hook", "seen": True, "evaluation_prompt_id": "a"}
    images = pl.DataFrame(
        [
            row | {"suite": "hoi", "image_id": "1", "pixels": pixels[0]},
            row | {"suite": "hoi", "image_id": "2", "pixels": pixels[1]},
            row | {"suite": "general", "image_id": "3", "pixels": pixels[1]},
        ]
    )
    scores = score_hands(store, settings_with(server), images, print)
    assert scores.schema == SCORES.schema
    assert scores["metric"].to_list() == ["anatomy"] * 2
    assert scores["value"].to_list() == pytest.approx([0.9, 0.1])
    assert score_hands(store, load_settings("tiny"), images, print).is_empty()
