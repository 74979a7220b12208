"""Hostile requests and answers: paths, SQL, names, bodies of servers."""

import base64
import io
import json
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image
from starlette.testclient import TestClient

from hoi_assets.cli.pages import pages_app
from hoi_assets.errors import HoiError
from hoi_assets.rating.page import Desk, build_app
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import study_folder
from hoi_assets.store.catalogue import query
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import Answer, Server
from hoi_assets_tests.llm.colours import ask
from hoi_assets_tests.llm.test_image_endpoint import PROMPTS, generated
from hoi_assets_tests.rating.conftest import study_of
from proofs.bounds import Attack

SECRET = "outside-of-what-is-served"
PATHS = (
    "../{}",
    "data_docs/../{}",
    "data_docs/%2e%2e/{}",
    "data_docs/..%2f{}",
    "data_docs/%252e%252e/{}",
    "data_docs/..%5c{}",
    "data_docs/....//{}",
    "data_docs//{}",
    "data_docs/link/{}",
    "data_docs/%00/../{}",
)


def _fetched(client: TestClient, outside: Path) -> str:
    """What could be fetched of a file outside."""
    for path in (str(outside), outside.name):
        for pattern in PATHS:
            try:
                answer = client.get("/" + pattern.format(path))
            except ValueError:  # an address that no client sends
                continue
            if SECRET in answer.text:
                return f"served {pattern}"
            if answer.status_code >= 500:
                return f"{answer.status_code} for {pattern!r}"
    return ""


def _pages(folder: Path) -> str:
    home, outside = folder / "home", folder / "secret.txt"
    (home / "data_docs").mkdir(parents=True)
    outside.write_text(SECRET, encoding="utf-8")
    (home / "ledger.sqlite").write_text(SECRET, encoding="utf-8")
    (home / "data_docs" / "link").symlink_to("/")
    client = TestClient(pages_app(home), raise_server_exceptions=False)
    return _fetched(client, outside) or _fetched(client, home / "ledger.sqlite")


def _rating(folder: Path) -> str:
    study, outside = study_of(folder, "pairwise", 2), folder / "secret.txt"
    outside.write_text(SECRET, encoding="utf-8")
    make_links(study, ["anna"])
    desk = Desk(study)
    with closing(desk):
        client = TestClient(build_app(desk), raise_server_exceptions=False)
        return _fetched(client, outside) or _fetched(client, study / "study.json")


def _votes(folder: Path) -> str:
    """Bodies that are no vote."""
    study = study_of(folder, "pairwise", 2)
    (link,) = make_links(study, ["anna"]).values()
    at = "/" + link.split("/", 3)[3]
    bodies = (b"", b"[" * 3000, b"{}", b'{"place": 1e999}', b"\xff\xfe", b"x" * 2_000_000)
    desk = Desk(study)
    with closing(desk):
        client = TestClient(build_app(desk), raise_server_exceptions=False)
        codes = [client.post(f"{at}votes", content=body).status_code for body in bodies]
    return "" if all(400 <= code < 500 for code in codes) else f"answered {codes}"


def _sql(statement: str) -> Callable[[Path], str]:
    """The statement must be refused; nothing may be written, and nothing outside read."""

    def run(folder: Path) -> str:
        store, outside = Store(folder / "home"), folder / "secret.csv"
        outside.write_text(f"a\n{SECRET}\n", encoding="utf-8")
        with store.stage("detailed_prompts", "hook") as staging:
            staging.write_table("rows", pl.DataFrame({"a": [1]}))
            store.publish(staging, {}, None)
        text = statement.format(outside=outside, target=folder / "written")
        try:
            found = str(query(store, text).to_dicts())
        except HoiError:
            found = ""
        if (folder / "written").exists():
            return "a file was written"
        if query(store, "select a from detailed_prompts")["a"].to_list() != [1]:
            return "the catalogue was changed"
        return "a file was read" if SECRET in found or "root:" in found else ""

    return run


STATEMENTS = (
    "select * from '{outside}'",
    "select * from read_csv('{outside}')",
    "select * from read_text('/etc/passwd')",
    "select * from glob('/etc/*')",
    "copy detailed_prompts to '{target}'",
    "copy (select 1) to '{target}' (format csv)",
    "attach '{target}' as other",
    "export database '{target}'",
    "install httpfs",
    "load sqlite",
    "set enable_external_access = true",
    "drop table detailed_prompts",
    "delete from detailed_prompts",
    "select 1; drop table detailed_prompts",
    "create macro f() as table select * from read_csv('{outside}'); select * from f()",
    "select getenv('HOME'), * from read_text('{outside}')",
    "pragma database_list; copy detailed_prompts to '{target}'",
)
NAMES = ("..", "../x", "/etc", "a/b", "a\\b", "", ".", "_", "a\0b", "x" * 300, "%2e%2e", "a b\n")


def _names(folder: Path) -> str:
    """Names of assets, partitions, studies and images that lead elsewhere."""
    store, faults = Store(folder / "home"), []
    doors: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("asset", lambda name: store.place(name)),
        ("partition", lambda name: store.place("detailed_prompts", name)),
        ("image", lambda name: store.images.path(name)),
        ("study", lambda name: study_folder(store.home, name)),
    )
    for what, opens in doors:
        for name in NAMES:
            try:
                found = Path(str(opens(name)))
            except HoiError:
                continue
            if what == "asset" and name == "_":
                continue  # a name like another
            if not found.resolve().is_relative_to(store.home.resolve()) or "\0" in str(found):
                faults.append(f"{what} {name!r} is {found}")
    return "; ".join(faults)


def _sql_in_values(folder: Path) -> str:
    """Values of the ledger that read as SQL."""
    ledger = Ledger(folder / "ledger.sqlite")
    evil = "'); drop table rows; --"
    row = {"stage": evil, "partition": evil, "row_id": evil, "status": "failed", "reason": evil}
    ledger.record([{**row, "version": None}])
    found = ledger.rows(stage=evil, status="failed")["reason"].to_list()
    return "" if found == [evil] else f"found {found}"


def _packed(size: int) -> bytes:
    """So many zeros in gzip's format, which are never in memory together."""
    packer = zlib.compressobj(6, wbits=zlib.MAX_WBITS | 16)
    part = bytes(2**20)
    return b"".join([*(packer.compress(part) for _ in range(size >> 20)), packer.flush()])


class _Gzipped(Server):
    """Whatever it is asked, it sends so many bytes, compressed."""

    def __init__(self, size: int) -> None:
        super().__init__(lambda request, number: Answer())
        packed = _packed(size)
        handler = self.http.RequestHandlerClass

        def send(own: Any, answer: Answer, body: bytes) -> None:
            own.send_response(200)
            own.send_header("Content-Type", "application/json")
            own.send_header("Content-Encoding", "gzip")
            own.send_header("Content-Length", str(len(packed)))
            own.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                own.wfile.write(packed)

        handler.send = send  # type: ignore[attr-defined]


def _gzip_bomb(folder: Path) -> str:
    with closing(_Gzipped(2**30)) as server:
        try:
            found = ask(server.url, 1, max_attempts=1)
        except HoiError:
            return ""
    return "" if found.replies[0].value is None else "it was believed"


def _no_picture(body: Callable[[Server], str]) -> Callable[[Path], str]:
    """An image endpoint's answer of which nothing may be stored."""

    def run(folder: Path) -> str:
        store = Store(folder / "home")
        server = Server(lambda request, number: Answer(body=body(server)))
        with closing(server):
            try:
                (row,) = generated(server.url, store, PROMPTS[:1], max_attempts=1)
            except HoiError:
                return ""
        return "" if row.pixels is None else f"stored {row.pixels}"

    return run


def _large_picture(server: Server) -> str:
    buffer = io.BytesIO()
    Image.new("1", (60000, 2900)).save(buffer, "PNG")
    return json.dumps({"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]})


def _by_url(url: str) -> Callable[[Server], str]:
    return lambda server: json.dumps({"data": [{"url": url.format(port=server.http.server_port)}]})


REQUESTS = (
    Attack("paths that leave the pages' folders", _pages),
    Attack("paths that leave the rating page", _rating),
    Attack("bodies that are no votes", _votes),
    Attack("names that lead elsewhere", _names),
    Attack("SQL in values of the ledger", _sql_in_values),
    *(Attack(f"SQL: {text}", _sql(text)) for text in STATEMENTS),
    Attack("gzip bomb of 1 GiB from a chat endpoint", _gzip_bomb),
    Attack("picture bomb from an image endpoint", _no_picture(_large_picture)),
    *(
        Attack(f"picture by the URL {url}", _no_picture(_by_url(url)))
        for url in (
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]:1/x.png",
            "ftp://127.0.0.1/x.png",
            "//127.0.0.1:{port}/../../etc/passwd",
            "javascript:alert(1)",
        )
    ),
)
