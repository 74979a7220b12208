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
from typing import Any

from hoi_assets.errors import HoiError

SERVED = ("data_docs", "assets/evaluation_report")


def pages_app(home: Path) -> Any:
    """An ASGI app for `data_docs/` and published reports; nothing else of the home is served."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import FileResponse, RedirectResponse, Response
    from starlette.routing import Route

    from hoi_assets.publishing.data_docs import build_index
    from hoi_assets.store.integrity import Damaged
    from hoi_assets.store.published import check_served

    home = home.resolve()

    async def page(request: Request) -> Response:
        path = (home / request.path_params["page"]).resolve()
        inside = any(path.is_relative_to(home / folder) for folder in SERVED)
        if inside and path.is_dir():
            path = path / "index.html"
        if path == home / "data_docs" / "index.html":
            with suppress(HoiError):  # a home that cannot be written keeps its last index
                build_index(home)
        if not inside or not path.is_file():
            raise HTTPException(404, "no such page; Data Docs are at /data_docs/index.html")
        try:
            check_served(home, path)
        except Damaged as error:
            raise HTTPException(500, str(error)) from error
        return FileResponse(path)

    async def start(request: Request) -> Response:
        return RedirectResponse("/data_docs/index.html")

    return Starlette(routes=[Route("/", start), Route("/{page:path}", page)])


def serve_pages(home: Path, host: str, port: int) -> None:
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
    serve_pages(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
