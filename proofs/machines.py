"""Both pipelines on one machine and on what several machines share: the same versions.

On one machine: `hoi run` with a home in a folder and its ledger in SQLite. On several: a cluster of
three Ray nodes on loopback, a home in an S3 bucket (SeaweedFS), its ledger in Postgres.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.loopback import LoopbackCluster, ray_variables
from hoi_assets_tests.pipeline_fixture import SCENARIO, write_profile
from hoi_assets_tests.postgres_server import PostgresServer, programs
from hoi_assets_tests.s3_server import BUCKET, S3Server, program
from proofs.campaign import Campaign, Trial

POSE = "worn"
# Versions and rows do not depend on clock, process or machine.
Found = dict[str, str]


def run(home: str, profile: Path, log: Path, environment: Mapping[str, str]) -> str:
    """`hoi run` of both pipelines, in a process of its own; the reason where it failed."""
    own = {"HOI_HOME": home, "HOI_PROFILE": str(profile), "OMP_NUM_THREADS": "1", **environment}
    with log.open("ab") as output:
        failed = subprocess.run(
            [sys.executable, "-m", "hoi_assets.cli.main", "run", POSE, SCENARIO],
            cwd=ROOT,
            env=os.environ | own,
            stdout=output,
            stderr=subprocess.STDOUT,
        ).returncode
    told = log.read_text(encoding="utf-8", errors="replace")[-1500:]
    return f"`hoi run` ended with {failed}: {told}" if failed else ""


def held(home: Path | str) -> tuple[Found, Found]:
    """Versions in force, each checked against its name, and how each row ended.

    Raises:
        HoiError: a damaged version.
    """
    store = Store(home)
    current = store.all_current()
    for published in current:
        published.verify()
    rows = {
        f"{row['stage']}/{row['partition']}/{row['row_id']}": f"{row['status']} {row['reason']}"
        for row in store.ledger.rows().iter_rows(named=True)
    }
    store.ledger.close()
    return {published.name: published.version for published in current}, rows


def _run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    weed, postgres = program(), programs()
    if weed is None or postgres is None:
        raise RuntimeError("SeaweedFS or Postgres is not installed: `make services` installs both")
    folder = folder.resolve()
    profile = write_profile(folder)
    home = folder / "home"
    fault = run(str(home), profile, folder / "alone.log", {})
    if fault:
        raise RuntimeError(fault)
    versions, rows = held(home)
    server, database = S3Server(weed), PostgresServer(postgres)
    variables = {
        **server.environment(),
        "HOI_LEDGER_URL": database.url(database.new_database()),
        "HOI_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    bucket = f"s3://{BUCKET}/homes/both"
    try:
        with ray_variables(**variables):
            cluster = LoopbackCluster()
            try:
                on_ray = {"HOI_EXECUTOR": "ray", "RAY_ADDRESS": cluster.address}
                fault = run(bucket, profile, folder / "shared.log", on_ray)
            finally:
                cluster.close()
            if fault:
                raise RuntimeError(fault)
            # As another machine reads it, which has cached nothing.
            os.environ["HOI_CACHE"] = str(folder / "cache of another machine")
            shared_versions, shared_rows = held(bucket)
    finally:
        database.close()
        server.close()
    places = sorted(versions.keys() | shared_versions.keys())
    for place in places[:trials]:
        here, there = versions.get(place), shared_versions.get(place)
        differs = f"{here} on one machine, {there} on several"
        yield Trial(place, "" if here == there else differs)
    several = [
        one for one in rows.keys() | shared_rows.keys() if rows.get(one) != shared_rows.get(one)
    ]
    told = f"{len(several)} rows differ, e.g. {min(several)}" if several else ""
    yield Trial(f"{len(rows)} rows of the ledger", told)


CAMPAIGN = Campaign(
    "machines",
    "both pipelines give the same versions with a folder and SQLite in one process, and with a "
    "bucket, Postgres and a Ray cluster of three nodes",
    _run,
)
