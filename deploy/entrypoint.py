"""Entrypoint of the image: see to Dagster's configuration, then become the command.

entrypoint.py setup            make the bucket and Dagster's tables where they are missing
entrypoint.py COMMAND [...]    e.g. dagster-webserver, ray, hoi
"""

import os
import sys
from pathlib import Path

from hoi_assets.cli.main import told
from hoi_assets.defs.dagster_home import prepare_dagster_home

SETUP = "setup"


def main(command: list[str]) -> int:
    """Prepare; a command does not return."""
    prepare()
    if command == [SETUP]:
        make_bucket(os.environ.get("HOI_HOME", ""))
        return 0
    os.execvp(command[0], command)


def prepare() -> None:
    """Write `dagster.yaml`, unless it is mounted there, as Dagster's Helm chart does."""
    folder = Path(os.environ["DAGSTER_HOME"])
    if not (folder / "dagster.yaml").exists() or (folder.parent / "staging").exists():
        prepare_dagster_home(folder.parent)


def make_bucket(home: str) -> None:
    """Make the bucket of an `s3://` home; elsewhere there is nothing to make."""
    if not home.startswith("s3://"):
        return
    import boto3

    bucket = home.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3")
    if bucket not in {one["Name"] for one in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    sys.exit(told(lambda: main(sys.argv[1:])))
