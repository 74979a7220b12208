"""Hostile files of a user: pictures, captions, prompts, profiles, taxonomies, votes."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hoi_assets.detailscribe.benchmark import benchmark_digest, read_benchmark
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.folder_reading import read_folder
from hoi_assets.ppv.instance_images import instance_images_digest, read_instance_images
from hoi_assets.rating.study import read_study
from hoi_assets.rating.votes import VOTES_FILE, read_lines
from hoi_assets.settings import InstanceImages, load_settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.rating.conftest import picture, study_of
from proofs.bounds import Attack

CATEGORY = "hook"
GIB = 2**30
SCRIPT = b"<script>alert(1)</script><?php system('id'); ?>"


def sparse(path: Path, size: int = 2 * GIB, start: bytes = b"") -> None:
    """A file of that size, of which only the start is on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def _png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    middle = b"".join(chunk(kind, body) for kind, body in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + middle
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


@cache
def _zeros(size: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size >> 20)) + packer.flush()


def _reference_picture(
    name: str, make: Callable[[Path], object], caption: Callable[[Path], object] | None = None
) -> Callable[[Path], str]:
    """One file beside a good picture; it must be a rejected row, or stored as its pixels alone."""

    def run(folder: Path) -> str:
        own = folder / "pictures" / CATEGORY
        own.mkdir(parents=True)
        picture(1, 128).save(own / "good.png")
        make(own / name)
        if caption is not None:
            caption(own / f"{Path(name).stem}.txt")
        settings = InstanceImages(folder=str(own.parent), min_side_px=1)
        store = Store(folder / "home")
        instance_images_digest(CATEGORY, settings)
        rows = read_instance_images(CATEGORY, settings, store.images)
        good = rows.filter(source="good.png")["status"].to_list()
        if good != ["accepted"]:
            return f"the good picture: {good}"
        stored = b"".join(path.read_bytes() for path in store.images.folder.rglob("*.png"))
        leaked = [what for what in (SCRIPT, b"root:") if what in stored]
        text = json.dumps(rows["caption"].to_list() + rows["reason"].to_list())
        return f"kept: {leaked}" if leaked else "a file outside was read" * ("root:" in text)

    return run


def _rejected(name: str, make: Callable[[Path], object]) -> Callable[[Path], str]:
    """As `_reference_picture`, and the file must be a rejected row."""

    def run(folder: Path) -> str:
        fault = _reference_picture(name, make)(folder)
        settings = InstanceImages(folder=str(folder / "pictures"), min_side_px=1)
        rows = read_instance_images(CATEGORY, settings, Store(folder / "home").images)
        status = rows.filter(source=name)["status"].to_list()
        return fault or ("" if status == ["rejected"] else f"{name} is {status}")

    return run


def _polyglot(kind: str) -> Callable[[Path], object]:
    """A picture that is also a page, a script and an archive."""

    def make(path: Path) -> None:
        picture(2, 128).save(path, kind)
        path.write_bytes(path.read_bytes() + SCRIPT + b"PK\x05\x06" + bytes(18))

    return make


def _refused(read: Callable[[Path], object]) -> Callable[[Path], str]:
    """It must be refused in words."""

    def run(folder: Path) -> str:
        try:
            found = read(folder)
        except HoiError:
            return ""
        return f"read: {str(found)[:200]}"

    return run


def _all_failed(read: Callable[[Path], list[Any]]) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        rows = read(folder)
        usable = [row for row in rows if row.reason is None]
        return f"usable: {usable[:1]}" if usable or not rows else ""

    return run


def _scored(name: str, start: bytes) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        (folder / "images").mkdir()
        picture(1).save(folder / "images" / "a.png")
        sparse(folder / name, start=start)
        return read_folder(folder / "images", folder / name)

    return read


def _benchmark(folder: Path) -> list[Any]:
    sparse(folder / "functional.jsonl", start=b'{"topic": "a", "prompt": "b"}\n')
    benchmark_digest(folder, "functional")
    return read_benchmark(folder, ["functional"])


def _votes(folder: Path) -> str:
    study = study_of(folder, "pairwise", 2)
    sparse(study / VOTES_FILE, start=b'{"rater": ')
    lines = list(read_lines(study, read_study(study)))
    return "" if all(line.vote is None for line in lines) else "a vote was read"


def _outside_prompts(folder: Path) -> str:
    """Lines that name files outside, by path and by a link inside."""
    images, secret = folder / "images", folder / "secret.png"
    images.mkdir()
    picture(5).save(secret)
    (images / "loop").symlink_to(images)
    names = ["../secret.png", str(secret), "images/../../secret.png", "loop/../../secret.png"]
    lines = [json.dumps({"file": name, "prompt": "a hand"}) for name in names]
    (folder / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = read_folder(images, folder / "p.jsonl")
    return "".join(f"scored {one.file}; " for one in found if one.pixels)


def _profile(text: str | None) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        path = folder / "own.yaml"
        if text is None:
            os.mkfifo(path)
        else:
            path.write_text(text, encoding="utf-8")
        return load_settings(str(path))

    return read


def _large_profile(folder: Path) -> object:
    sparse(folder / "own.yaml", start=b"threads: 1\n#")
    return load_settings(str(folder / "own.yaml"))


def _taxonomy(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        (folder / "categories").mkdir()
        make(folder / "categories" / "worn.yaml")
        return load_taxonomy(folder)

    return read


BOMB = "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['x'] * 9)}]\n" for n in range(12)
)
WHITE = bytes.fromhex("789cedc1010d000000c2a0f74f6d0e37a00000000000000000000000bf0d")

FILES = (
    Attack(
        "PNG bomb, 2e9 px a side",
        _rejected("a.png", lambda p: p.write_bytes(_png(2**31 - 1, 2**31 - 1, WHITE))),
    ),
    Attack(
        "PNG bomb, 60000 px a side",
        _rejected("a.png", lambda p: p.write_bytes(_png(60000, 60000, _zeros(2**24)))),
    ),
    Attack(
        "PNG bomb below the longest side",
        _rejected("a.png", lambda p: p.write_bytes(_png(16000, 16000, _zeros(32 * 2**20)))),
    ),
    Attack(
        "PNG whose text inflates to 256 MiB",
        _reference_picture(
            "a.png",
            lambda p: p.write_bytes(
                _png(1, 1, zlib.compress(b"\0\0"), (b"zTXt", b"a\0\0" + _zeros(2**28)))
            ),
        ),
    ),
    Attack(
        "PNG whose colour profile inflates to 256 MiB",
        _reference_picture(
            "a.png",
            lambda p: p.write_bytes(
                _png(1, 1, zlib.compress(b"\0\0"), (b"iCCP", b"a\0\0" + _zeros(2**28)))
            ),
        ),
    ),
    Attack("PNG and page and script", _reference_picture("a.png", _polyglot("PNG"))),
    Attack("JPEG and page and script", _reference_picture("a.jpg", _polyglot("JPEG"))),
    Attack(
        "SVG with a script called PNG",
        _rejected(
            "a.png",
            lambda p: p.write_bytes(
                b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
            ),
        ),
    ),
    Attack(
        "zip called PNG", _rejected("a.png", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)))
    ),
    Attack(
        "pickle called PNG",
        _rejected("a.png", lambda p: p.write_bytes(b"\x80\x04cos\nsystem\n(S'id'\ntR.")),
    ),
    Attack("named pipe called PNG", _rejected("a.png", os.mkfifo)),
    Attack(
        "picture is a link to /etc/passwd",
        _rejected("a.png", lambda p: p.symlink_to("/etc/passwd")),
    ),
    Attack(
        "picture is a link to /dev/zero", _rejected("a.png", lambda p: p.symlink_to("/dev/zero"))
    ),
    Attack("picture is a link to itself", _rejected("a.png", lambda p: p.symlink_to(p))),
    Attack("picture of 2 GiB", _rejected("a.png", sparse)),
    Attack(
        "caption is a link to /etc/passwd",
        _reference_picture("a.png", picture(3, 128).save, lambda p: p.symlink_to("/etc/passwd")),
    ),
    Attack("caption of 2 GiB", _reference_picture("a.png", picture(3, 128).save, sparse)),
    Attack("caption is a named pipe", _reference_picture("a.png", picture(3, 128).save, os.mkfifo)),
    Attack(
        "JSONL of 2 GiB for `hoi score`",
        _refused(_scored("p.jsonl", b'{"file": "a.png", "prompt": "')),
    ),
    Attack("CSV of 2 GiB for `hoi score`", _refused(_scored("p.csv", b"file,prompt\na.png,"))),
    Attack("TXT of 2 GiB for `hoi score`", _refused(_scored("p.txt", b"a hand"))),
    Attack("benchmark JSONL of 2 GiB", _all_failed(_benchmark)),
    Attack("votes of 2 GiB in one line", _votes),
    Attack("prompts that name files outside", _outside_prompts),
    Attack("profile: alias bomb", _refused(_profile(BOMB))),
    Attack(
        "profile: Python object",
        _refused(_profile("models: !!python/object/apply:os.system ['id']")),
    ),
    Attack("profile: 100000 levels", _refused(_profile("a: " + "[" * 100_000))),
    Attack("profile: an endless integer", _refused(_profile("threads: " + "9" * 1_000_000))),
    Attack("profile: a named pipe", _refused(_profile(None))),
    Attack("profile of 2 GiB", _refused(_large_profile)),
    Attack(
        "category: a link to /etc/passwd",
        _refused(_taxonomy(lambda p: p.symlink_to("/etc/passwd"))),
    ),
    Attack("category: a named pipe", _refused(_taxonomy(os.mkfifo))),
    Attack("category: 2 GiB", _refused(_taxonomy(sparse))),
)
