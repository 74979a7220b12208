"""Studies of a home in a bucket: copied here before they are read, shared after they changed.

A study's page is served by one machine at a time. Votes are on its disk before the page is
answered, and in the bucket right after; those that could not be sent are sent later.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below
from hoi_assets.progress import Log
from hoi_assets.rating.study import IMAGES, RATINGS
from hoi_assets.rating.votes import VOTES_FILE
from hoi_assets.store.bucket import in_parallel
from hoi_assets.store.bucket_errors import Conflict
from hoi_assets.store.disk import replace_bytes
from hoi_assets.store.remote_home import RemoteHome
from hoi_assets.store.versions import Store

TRIES = 10


def fetch_studies(remote: RemoteHome | None, pictures_of: str | None = None) -> None:
    """Copy all studies here; a home that is a folder has them.

    Args:
        pictures_of: name of the study whose pictures are copied too.
    """
    if remote is None:
        return
    folder = remote.mirror / RATINGS
    keys = [one.key for one in remote.bucket.list(f"{remote.key(folder)}/")]
    pictures = [remote.mirror / key for key in keys if _is_picture(key)]
    remote.pull_below(folder, lambda key: not _is_picture(key) and not key.endswith(VOTES_FILE))
    for key in keys:
        if key.endswith(f"/{VOTES_FILE}"):
            _share_votes(remote, remote.mirror / key)
    wanted = [one for one in pictures if one.parents[2].name == pictures_of and not one.exists()]
    in_parallel(remote.fetch_object, wanted)


def studies_home(store: Store) -> Path:
    """The folder of the home with all studies and votes, as they are now."""
    fetch_studies(store.remote)
    return store.home


def share_study(remote: RemoteHome | None, folder: Path) -> None:
    """Upload a study that was made or got new raters."""
    if remote is not None:
        own = [path for name, path in files_below(folder) if path.suffix != ".lock"]
        remote.push_files(path for path in own if path.name != VOTES_FILE)


@contextmanager
def serving(remote: RemoteHome | None, folder: Path, log: Log) -> Iterator[Callable[[], None]]:
    """While a study is served: gives what is to be called after each vote.

    Raises:
        HoiError: another machine serves it.
    """
    if remote is None:
        yield lambda: None
        return
    votes = folder / VOTES_FILE

    def share() -> None:
        try:
            _share_votes(remote, votes)
        except HoiError as error:
            log(f"votes are on this disk and will be sent with the next one: {error}")

    key = f"locks/{RATINGS}/{folder.name}.json"
    with remote.locks.holding(key, f"the page of study {folder.name}", timeout_s=0):
        fetch_studies(remote, folder.name)
        yield share
        share()


def _is_picture(key: str) -> bool:
    return f"/{IMAGES}/" in key


def _share_votes(remote: RemoteHome, path: Path) -> None:
    """Make the votes here and in the bucket the same: the bucket's, then those only here."""
    key = remote.key(path)
    for _ in range(TRIES):
        local = path.read_bytes() if path.exists() else b""
        local = local[: local.rfind(b"\n") + 1]  # a vote is being written
        found = remote.bucket.get(key, local)
        there = b"" if found is None else found.data
        merged = local
        if not local.startswith(there):
            known = set(there.splitlines(keepends=True))
            merged = there + b"".join(
                line for line in local.splitlines(keepends=True) if line not in known
            )
            replace_bytes(path, merged, remote.mirror / "staging", durable=True, mode=0o600)
        if merged == there:
            return
        try:
            etag = None if found is None else found.etag
            remote.bucket.put(key, merged, etag, absent=found is None)
            return
        except Conflict:
            continue
    raise HoiError(f"{remote.address(path)} changes all the time", "run again")
