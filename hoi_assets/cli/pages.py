"""Serves pages of the home on loopback: Data Docs and reports, linked from Dagster's UI."""

from pathlib import Path
from typing import Any

SERVED = ("data_docs", "assets/evaluation_report")


def pages_app(home: Path) -> Any:
    """An ASGI app for `data_docs/` and published reports; nothing else of the home is served."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import FileResponse, RedirectResponse, Response
    from starlette.routing import Route

    home = home.resolve()

    async def page(request: Request) -> Response:
        path = (home / request.path_params["page"]).resolve()
        inside = any(path.is_relative_to(home / folder) for folder in SERVED)
        if inside and path.is_dir():
            path = path / "index.html"
        if not inside or not path.is_file():
            raise HTTPException(404, "no such page; Data Docs are at /data_docs/index.html")
        return FileResponse(path)

    async def start(request: Request) -> Response:
        return RedirectResponse("/data_docs/index.html")

    return Starlette(routes=[Route("/", start), Route("/{page:path}", page)])
