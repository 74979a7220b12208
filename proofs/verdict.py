"""Whether a planted defect was caught as it must be."""

import json
from collections.abc import Mapping
from pathlib import Path

from hoi_assets.publishing import evidence
from hoi_assets.store.versions import Store
from proofs.defects import Defect
from proofs.versions import in_force


def escaped(
    store: Store, place: str, defect: Defect, before: Mapping[str, str], success: bool
) -> str:
    """What the gate let through; empty where the step failed, the expectation that is meant is
    broken, and every version in force is the one before.

    Args:
        place: "asset" or "asset/partition".
        before: versions in force, by place.
        success: whether the run succeeded.
    """
    if success:
        return "the run succeeded"
    if in_force(store) != before:
        return "another version is in force"
    asset, _, partition = place.partition("/")
    attempt = evidence.latest(store, asset, partition or None)
    if attempt is None or attempt.state != "rejected":
        return f"not the gate, but: {attempt}"
    found = _broken(Path(str(attempt.detail["quarantine"])) / "evidence.json")
    return "" if defect.caught_by in found else f"caught, but by: {found}"


def _broken(evidence_file: Path) -> str:
    """The broken expectations of a quarantined version, one after the other."""
    findings = json.loads(evidence_file.read_text(encoding="utf-8"))["findings"]
    broken = [one for one in findings if one["blocking"] and not one["holds"]]
    return "; ".join(f"{one['expectation']} on {one['table']}.{one['column']}" for one in broken)
