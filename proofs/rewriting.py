"""Prompts rewritten by an endpoint, in a process of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hoi_assets.detailscribe.baselines.rewriter import EndpointRewriter, rewrite_prompts
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import Rewriter
from hoi_assets.store.versions import Store

PROMPTS = 12
KEY = {"HOI_API_KEY": "a-key-of-nobody"}


def rewrite(home: Path, url: str) -> None:
    """Rewrite all prompts; ends with 1 where some failed, with 2 where the endpoint does not answer
    at all."""
    store = Store(home, "proof")
    options = Rewriter(endpoint=url, model="m", concurrency=2, timeout_s=5, max_attempts=2)
    prompts = [f"a hand holds {number} mugs" for number in range(PROMPTS)]
    try:
        replies = rewrite_prompts(prompts, EndpointRewriter(options), store.ledger)
    except HoiError as error:
        print(f"error: {error}", flush=True)
        sys.exit(2)
    failed = [reply.reason for reply in replies.values() if reply.value is None]
    print(f"{len(failed)} failed: {failed}", flush=True)
    sys.exit(1 if failed else 0)


def accepted(request: Mapping[str, Any]) -> str:
    """The text of a reply that is accepted, the same for the same request."""
    return '{"prompt": "a hand holds mugs on a table, ' + digest(request["messages"])[:8] + '"}'
