"""Small published versions for tests of the report."""

from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from hoi_assets.engines.vilt.calibration import VERIFIER_QUALITY, VERIFIER_RELIABILITY
from hoi_assets.ppv.verdicts import VERDICT_ROWS
from hoi_assets.ppv.verifier_training import VERIFIER_SUMMARY
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.rating.conftest import picture


def publish(
    store: Store,
    asset: str,
    partition: str | None = None,
    made_from: dict[str, str] | None = None,
    **tables: Any,
) -> Published:
    with store.stage(asset, partition) as out:
        for name, rows in tables.items():
            frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
            out.write_table(name, frame)
        store.publish(out, {"code_version": "1"}, None, made_from)
    return store.require(asset, partition)


def verifier_tables(
    idle: str | None = None,
    precision: tuple[float, float, float] | None = (0.97, 0.96, 0.98),
    target_met: bool = True,
    auc: tuple[float, float, float] = (0.9, 0.85, 0.94),
) -> dict[str, pl.DataFrame]:
    """Tables of a verifier with a target of 95%; an idle head is at chance."""
    whole = {**dict.fromkeys(VERIFIER_QUALITY.schema), "slice_kind": "all", "slice": "all"}
    quality = []
    for head in ("fidelity", "alignment", "pair"):
        value, low, high = (0.48, 0.39, 0.57) if head == idle else auc
        row = {**whole, "head": head, "n": 200, "positives": 120, "accepted": 100}
        row |= {"auc": value, "auc_low": low, "auc_high": high}
        if precision is not None:
            names = ("precision", "precision_low", "precision_high")
            row |= dict(zip(names, precision, strict=True))
        quality.append(row)
    summary = {
        **dict.fromkeys(VERIFIER_SUMMARY.schema),
        "target_precision": 0.95,
        "idle_head": idle,
        "target_met": target_met,
        "precision": None if precision is None else precision[0],
        "test_pairs": 200,
    }
    reliability = {
        **dict.fromkeys(VERIFIER_RELIABILITY.schema, 0.5),
        "head": "fidelity",
        "bin": 0,
        "n": 9,
    }
    return {
        "summary": VERIFIER_SUMMARY.frame([summary]),
        "quality": VERIFIER_QUALITY.frame(quality),
        "reliability": VERIFIER_RELIABILITY.frame([reliability]),
    }


def verdict(store: Store, number: int, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A row of `verified_pairs`: rejected where there is a reason."""
    return {
        **dict.fromkeys(VERDICT_ROWS.schema),
        "image_id": f"{number:016x}",
        "prompt_id": f"p{number // 2}",
        "category": "hook",
        "prompt": f"a hand carries bag {number}",
        "pixels": store.images.put(picture(number, 32)),
        "p_fidelity": 0.9,
        "p_alignment": 0.9,
        "p_pair": 0.8,
        "status": "accepted" if reason is None else "rejected",
        "reason": reason,
        "verifier_version": "v",
        **more,
    }


def defect_map(store: Store, brightest: int = 255) -> str:
    """A map with a spot in the middle."""
    grey = np.zeros((16, 16), np.uint8)
    grey[5:11, 5:11] = brightest
    return store.images.put(Image.fromarray(grey))


def publish_verdicts(store: Store, rows: list[dict[str, Any]], category: str = "hook") -> Published:
    return publish(store, "verified_pairs", category, rows=VERDICT_ROWS.frame(rows))
