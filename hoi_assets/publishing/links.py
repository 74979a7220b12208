"""Links from Dagster's UI to pages below the home, which `hoi ui` serves on loopback."""

import os
from pathlib import Path
from urllib.parse import quote

DEFAULT_URL = "http://127.0.0.1:3001"


def pages_url() -> str:
    """Where pages of the home are served: `HOI_PAGES_URL`, else loopback beside the UI."""
    return (os.environ.get("HOI_PAGES_URL") or DEFAULT_URL).rstrip("/")


def page_url(home: Path, page: Path) -> str:
    """Link to a page below the home, e.g. a Data Docs page or a published report."""
    return f"{pages_url()}/{quote(page.relative_to(home).as_posix())}"
