"""Hand landmarks: the geometry, and, where the models are there, real pictures."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hoi_assets.engines import hand_landmarks
from hoi_assets.engines.hand_landmarks import (
    HAND_FILE,
    PALM_FILE,
    PALM_SIDE,
    cached_presence,
    find_hands,
    landmarks_digest,
    load_hand_landmarker,
    presence,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import resolve_path
from hoi_assets.store.scene_pool import decode_picture, read_pool
from hoi_assets.store.versions import Store

# The two files of the wheel mediapipe 0.10.21; without them their tests are skipped.
FOLDER = os.environ.get("HOI_TEST_LANDMARKS")
needs_models = pytest.mark.skipif(
    FOLDER is None or find_spec("ai_edge_litert") is None,
    reason="set HOI_TEST_LANDMARKS to a folder with the two models and install ai-edge-litert",
)


def test_surest_palms_are_kept_and_those_that_overlap_them_are_not() -> None:
    raw = np.zeros((2016, 18), np.float32)
    raw[:, 2:4] = 40  # every box is 40 px wide and high, round its anchor
    logits = np.full(2016, -9.0, np.float32)
    logits[[0, 1, 600]] = 2.0, 3.0, 1.0  # the first two share an anchor's place
    found = hand_landmarks._palms(raw, logits)
    assert [round(score, 3) for _, score in found] == [0.953, 0.731]
    centre = found[0][0][0] * PALM_SIDE
    assert centre == pytest.approx([4, 4])  # the first cell of 24 is 8 px wide
    assert found[0][0][1] * PALM_SIDE == pytest.approx([40, 40])


def test_overlap_is_intersection_over_union() -> None:
    box = np.array([[0.5, 0.5], [0.2, 0.2]])
    aside = np.array([[0.6, 0.5], [0.2, 0.2]])
    assert hand_landmarks._overlap(box, box) == pytest.approx(1)
    assert hand_landmarks._overlap(box, aside) == pytest.approx(1 / 3)


def test_missing_files_and_packages_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match=PALM_FILE) as missing:
        cached_presence(Store(tmp_path / "home"), tmp_path, ["p"], print)
    assert "mediapipe 0.10.21" in missing.value.remedy
    for name in (PALM_FILE, HAND_FILE):
        (tmp_path / name).write_bytes(b"no model")
    assert len(landmarks_digest(tmp_path)) == 64
    with pytest.raises(HoiError, match=r"ai-edge-litert|cannot be loaded"):
        load_hand_landmarker(tmp_path)


@needs_models
def test_hands_of_renders_are_found_with_their_landmarks_inside(tmp_path: Path) -> None:
    folder = Path(str(FOLDER))
    model = load_hand_landmarker(folder)
    scenes = read_pool(resolve_path("data/pool"), "judge_test").sort("scene_id").head(10)
    store = Store(tmp_path / "home")
    pictures = [decode_picture(data).resize((512, 512)) for data in scenes["twin"]]
    found = [find_hands(model, picture) for picture in pictures]
    assert sum(bool(hands) for hands in found) >= 6
    for hand in (hand for hands in found for hand in hands):
        inside = np.abs(hand.landmarks - np.array(hand.centre)).max(axis=1) <= hand.side
        assert hand.landmarks.shape == (21, 2) and inside.mean() > 0.9
        assert 0 <= hand.presence <= 1
    digests = [store.images.put(picture) for picture in pictures]
    store.images.flush()
    stored = cached_presence(store, folder, digests, print)
    assert [stored[one] for one in digests] == [presence(hands) for hands in found]
