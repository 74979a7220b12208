"""Serves pages of the home on loopback: Data Docs and reports, linked from Dagster's UI.

`hoi ui` starts it beside Dagster as `python -m hoi_assets.cli.pages HOME HOST PORT`; it ends with
the process that started it.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.settings.locations import is_url

if TYPE_CHECKING:
    from hoi_assets.store.remote_home import RemoteHome

SERVED = ("data_docs", "assets/evaluation_report")


def pages_app(location: Path | str) -> Any:
    """An ASGI app for `data_docs/` and published reports; nothing else of the home is served.

    Args:
        location: the home's folder, or its URL.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import FileResponse, RedirectResponse, Response
    from starlette.routing import Route

    from hoi_assets.publishing.data_docs import RESULTS, build_index
    from hoi_assets.store.integrity import Damaged
    from hoi_assets.store.published import check_served
    from hoi_assets.store.remote_home import RemoteHome

    remote = RemoteHome(location) if isinstance(location, str) else None
    home = (Path(location) if remote is None else remote.mirror).resolve()

    async def page(request: Request) -> Response:
        path = (home / request.path_params["page"]).resolve()
        inside = any(path.is_relative_to(home / folder) for folder in SERVED)
        if inside and path.is_dir():
            path = path / "index.html"
        if path == home / "data_docs" / "index.html":
            with suppress(HoiError):  # a home that cannot be written keeps its last index
                if remote is not None:
                    remote.pull_below(home / RESULTS, lambda key: key.endswith(".json"))
                build_index(home)
        try:
            if inside and remote is not None:
                _fetch(remote, path)
            if not inside or not path.is_file():
                raise HTTPException(404, "no such page; Data Docs are at /data_docs/index.html")
            check_served(home, path)
        except Damaged as error:
            raise HTTPException(500, str(error)) from error
        return FileResponse(path)

    async def start(request: Request) -> Response:
        return RedirectResponse("/data_docs/index.html")

    return Starlette(routes=[Route("/", start), Route("/{page:path}", page)])


def _fetch(remote: "RemoteHome", path: Path) -> None:
    """Copy a page from the bucket, where it is there."""
    from hoi_assets.store.published import NotStored, check_served

    if path.is_relative_to(remote.mirror / "assets"):
        with suppress(NotStored):  # shown as a page that is not there
            check_served(remote.mirror, path, remote)
    elif not path.is_file():
        remote.fetch_object(path)


def serve_pages(home: Path | str, host: str, port: int) -> None:
    """Serve until the process that started this one has ended."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(pages_app(home), host=host, port=port, log_level="warning")
    )
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run()


if __name__ == "__main__":
    named = sys.argv[1]
    serve_pages(named if is_url(named) else Path(named), sys.argv[2], int(sys.argv[3]))
