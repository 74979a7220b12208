"""Hashes of what `constraints.txt` pins.

    python pins.py lock INDEX      ask a package index (URL of its simple API), write `hashes.txt`
    python pins.py check REPORT    compare with what was installed (`pip install --report REPORT`)

`check` prints the names of packages that differ, so that they can be uninstalled.

pip itself checks hashes only where every requirement has one, which neither an editable project nor
torch can have: its CPU builds come from an index of their own.
"""

import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
HASHES = Path(__file__).with_name("hashes.txt")
ACCEPT = "application/vnd.pypi.simple.v1+json"
ANY_INDEX = {"torch"}
# Source archives, and wheels that the Pythons of pyproject.toml can take.
TAKEN = re.compile(r"\.tar\.gz$|\.zip$|-(cp311|cp312)-|-abi3-|-py2\.py3-|-py3\d*[-.]")


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    if len(arguments) == 2 and arguments[0] == "lock":
        return lock(arguments[1].rstrip("/"))
    if len(arguments) == 2 and arguments[0] == "check":
        return check(Path(arguments[1]))
    print(__doc__, file=sys.stderr)
    return 2


def lock(index: str) -> int:
    """Write the SHA-256 of every file of the pinned versions, a line each package."""
    pins = [
        line.split("==")
        for line in CONSTRAINTS.read_text(encoding="utf-8").split()
        if "==" in line and not line.startswith("#")
    ]
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda pin: _line(index, *pin), pins))
    HASHES.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} packages in {HASHES.name}")
    return 0


def check(report: Path) -> int:
    """Say which installed files are not among the hashes; 1 if any is not."""
    known = {
        (_name(line.split("==")[0]), line.split()[0].split("==")[1]): set(line.split()[1:])
        for line in HASHES.read_text(encoding="utf-8").splitlines()
    }
    wrong = {}
    for one in json.loads(report.read_text(encoding="utf-8"))["install"]:
        name, version = _name(one["metadata"]["name"]), one["metadata"]["version"].split("+")[0]
        archive = one["download_info"].get("archive_info")
        if archive is None or name in ANY_INDEX:  # the project itself is a folder
            continue
        if archive.get("hashes", {}).get("sha256") not in known.get((name, version), set()):
            wrong[name] = f"{version} from {one['download_info']['url']}"
    for name, what in wrong.items():
        print(name)
        print(f"{name} {what}: its SHA-256 is not in {HASHES.name}", file=sys.stderr)
    if wrong:
        print(
            "These files are not those that were tested. Install from PyPI; after a change of "
            "constraints.txt run `python pins.py lock INDEX`.",
            file=sys.stderr,
        )
    return int(bool(wrong))


def _line(index: str, name: str, version: str) -> str:
    request = urllib.request.Request(f"{index}/{_name(name)}/", headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    begin = re.compile(rf"[-_.a-z0-9]+-{re.escape(version.lower())}[-.]")
    found = sorted(
        file["hashes"]["sha256"]
        for file in files
        if TAKEN.search(file["filename"]) and begin.match(file["filename"].lower())
    )
    if not found:
        raise SystemExit(f"{name}=={version}: the index has no file of this version")
    return " ".join([f"{name}=={version}", *found])


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
