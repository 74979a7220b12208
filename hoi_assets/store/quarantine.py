"""What a gate rejected, and published files that were altered: set aside, read by nothing."""

import json
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hoi_assets.store.disk import replace_bytes
from hoi_assets.store.places import quarantine_folder
from hoi_assets.store.staging import Staging


def quarantine(home: Path, staging: Staging, evidence: dict[str, Any]) -> Path:
    """See `Store.quarantine`; the caller holds the place's publishing lock."""
    folder = quarantine_folder(home, staging.asset, staging.partition) / staging.version()
    folder.mkdir(parents=True, exist_ok=True)
    content = folder / "content"
    if content.exists():
        shutil.rmtree(content)
    staging.path.replace(content)
    when = datetime.now(UTC).isoformat(timespec="microseconds")
    text = json.dumps({"quarantined_at": when, **evidence}, indent=2, default=str)
    replace_bytes(
        folder / "evidence.json", text.encode(), home / "staging", durable=True, mode=0o644
    )
    return folder


def set_aside(home: Path, version: Path, asset: str, partition: str | None) -> None:
    """Move a published version whose files were altered out of the way."""
    folder = quarantine_folder(home, asset, partition)
    folder.mkdir(parents=True, exist_ok=True)
    version.replace(folder / f"{version.name}-altered-{uuid.uuid4().hex[:8]}")
