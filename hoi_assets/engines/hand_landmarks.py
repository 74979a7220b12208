"""Confidence of a hand-landmark model: MediaPipe's palm detector and landmark model, two Apache-2.0
files that run under `ai-edge-litert`.

Presence is how sure the landmark model is that its crop shows a hand. It hardly falls with a sixth
finger (0.99 on renders with one): it finds pictures without a recognisable hand, not faulty hands.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.progress import Log
from hoi_assets.store.versions import Store

LANDMARKS_VERSION = "1"  # part of every reading's key: raise it when the numbers change
KIND = "hand_presence"
CHUNK = 64
PALM_FILE, HAND_FILE = "palm_detection_full.tflite", "hand_landmark_full.tflite"
# Square inputs in pixels, and the detector's anchors: cells on a side, anchors a cell.
PALM_SIDE, HAND_SIDE = 192, 224
ANCHORS = ((24, 2), (12, 6))
MIN_SCORE, MAX_OVERLAP, MAX_HANDS = 0.5, 0.3, 4
# From a palm's box to the hand's square, as MediaPipe's graph has them.
SHIFT, SCALE = -0.5, 2.6
WRIST, MIDDLE = 0, 2  # of the palm's keypoints
REMEDY = (
    "pip install ai-edge-litert; the two files are in the wheel mediapipe 0.10.21 "
    "(pip download --no-deps mediapipe==0.10.21), below mediapipe/modules"
)


@dataclass(frozen=True)
class Hand:
    """One hand: its square (centre, side in pixels, rotation in radians), how sure the detector
    and the landmark model are of it (0 to 1), and 21 landmarks (21, 2) in pixels."""

    centre: tuple[float, float]
    side: float
    rotation: float
    score: float
    presence: float
    landmarks: np.ndarray


@dataclass(frozen=True)
class HandLandmarker:
    """Both models in memory; `digest` is the hash of their files."""

    palm: Any
    hand: Any
    digest: str


def landmarks_digest(folder: Path) -> str:
    """Hash of the two files, 64 hex digits.

    Raises:
        HoiError: one is missing.
    """
    for name in (PALM_FILE, HAND_FILE):
        if not (folder / name).is_file():
            raise HoiError(f"no hand-landmark model at {folder / name}", REMEDY)
    return digest([digest_file(folder / name) for name in (PALM_FILE, HAND_FILE)])


def load_hand_landmarker(folder: Path) -> HandLandmarker:
    """Both models, loaded once per process and content.

    Raises:
        HoiError: a file is missing or damaged, or ai-edge-litert is not installed.
    """
    return _load(folder, landmarks_digest(folder))


@lru_cache(maxsize=1)
def _load(folder: Path, found: str) -> HandLandmarker:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise HoiError("hand landmarks need ai-edge-litert", REMEDY) from error
    models = []
    for name in (PALM_FILE, HAND_FILE):
        try:
            # One thread: the numbers do not depend on the machine's load.
            model = Interpreter(model_path=str(folder / name), num_threads=1)
        except (ValueError, RuntimeError) as error:
            raise HoiError(f"{folder / name} cannot be loaded: {error}", REMEDY) from error
        model.allocate_tensors()
        models.append(model)
    return HandLandmarker(models[0], models[1], found)


def find_hands(model: HandLandmarker, image: Image.Image) -> list[Hand]:
    """The hands of a picture, the surest first; empty where the detector finds no palm."""
    image = image.convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = square.resize((PALM_SIDE, PALM_SIDE), Image.Resampling.BILINEAR)
    boxes, logits = _run(model.palm, small)[:2]
    if boxes.shape[-1] == 1:
        boxes, logits = logits, boxes
    palms = _palms(boxes[0], logits[0, :, 0])
    return [_hand(model, square, palm, score) for palm, score in palms]


def presence(hands: Sequence[Hand]) -> float | None:
    """How sure the landmark model is of the least sure hand; None without a hand."""
    return min((one.presence for one in hands), default=None)


def _run(model: Any, image: Image.Image) -> list[np.ndarray]:
    """Outputs by their names."""
    pixels = np.asarray(image, dtype=np.float32)[None] / 255
    model.set_tensor(model.get_input_details()[0]["index"], pixels)
    model.invoke()
    outputs = sorted(model.get_output_details(), key=lambda one: one["name"])
    return [model.get_tensor(one["index"]) for one in outputs]


@lru_cache(maxsize=1)
def _anchor_centres() -> np.ndarray:
    """Centres (N, 2) of the detector's anchors, as shares of the side."""
    found = []
    for cells, each in ANCHORS:
        at = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
        found.append(np.repeat(grid, each, axis=0))
    return np.concatenate(found)


def _palms(raw: np.ndarray, logits: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Palms that overlap no surer one: centre, size and seven keypoints (9, 2), as shares.

    Args:
        raw: (N, 18), in pixels relative to the anchors; the first four are centre and size.
        logits: (N,).
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(float), -100, 100)))
    points = raw.reshape(len(raw), 9, 2) / PALM_SIDE
    anchors = _anchor_centres()[:, None, :]
    points = np.concatenate([points[:, :1] + anchors, points[:, 1:2], points[:, 2:] + anchors], 1)
    kept: list[tuple[np.ndarray, float]] = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] < MIN_SCORE or len(kept) == MAX_HANDS:
            break
        if all(_overlap(points[place], other) < MAX_OVERLAP for other, _ in kept):
            kept.append((points[place], float(scores[place])))
    return kept


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes, given as centre and size."""
    low = np.maximum(first[0] - first[1] / 2, second[0] - second[1] / 2)
    high = np.minimum(first[0] + first[1] / 2, second[0] + second[1] / 2)
    shared = float(np.clip(high - low, 0, None).prod())
    return shared / max(float(first[1].prod() + second[1].prod()) - shared, 1e-9)


def _hand(model: HandLandmarker, square: Image.Image, palm: np.ndarray, score: float) -> Hand:
    """Landmarks of one palm, from the upright square round its hand."""
    points = palm.copy() * square.width
    wrist, middle = points[2 + WRIST], points[2 + MIDDLE]
    up = math.atan2(-(middle[1] - wrist[1]), middle[0] - wrist[0])
    rotation = (math.pi / 2 - up + math.pi) % (2 * math.pi) - math.pi
    cos, sin = math.cos(rotation), math.sin(rotation)
    width, height = points[1]
    x, y = points[0] + np.array([-sin, cos]) * SHIFT * height
    side = SCALE * max(width, height)
    step = side / HAND_SIDE
    corner = (
        x - side / 2 * cos + side / 2 * sin,
        y - side / 2 * sin - side / 2 * cos,
    )
    turned = (step * cos, -step * sin, corner[0], step * sin, step * cos, corner[1])
    crop = square.transform(
        (HAND_SIDE, HAND_SIDE), Image.Transform.AFFINE, turned, Image.Resampling.BILINEAR
    )
    landmarks, confidence = _run(model.hand, crop)[:2]
    at = landmarks.reshape(-1, 3)[:, :2]
    matrix = np.array([[turned[0], turned[1]], [turned[3], turned[4]]])
    return Hand(
        (float(x), float(y)),
        float(side),
        rotation,
        score,
        float(confidence.reshape(-1)[0]),
        at @ matrix.T + np.array(corner),
    )


def cached_presence(
    store: Store, folder: Path, pixels: Sequence[str], log: Log
) -> dict[str, float | None]:
    """`presence` of stored pictures, by digest; each is read once per model.

    Raises:
        HoiError: as `load_hand_landmarker`.
    """
    model = landmarks_digest(folder)
    keys = {
        one: digest({"landmarks": LANDMARKS_VERSION, "model": model, "pixels": one})
        for one in dict.fromkeys(pixels)
    }
    known: dict[str, Any] = store.ledger.get(KIND, keys.values())
    todo = [one for one, key in keys.items() if key not in known]
    for start in range(0, len(todo), CHUNK):
        landmarker = load_hand_landmarker(folder)
        fresh = {
            # A list, so that "no hand" is stored too.
            keys[one]: [presence(find_hands(landmarker, store.images.open(one)))]
            for one in todo[start : start + CHUNK]
        }
        known |= store.ledger.put(KIND, fresh)
        log(f"hand landmarks: {min(start + CHUNK, len(todo))}/{len(todo)} pictures")
    return {one: known[key][0] for one, key in keys.items()}
