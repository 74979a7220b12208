"""Fixtures for all tests: a chat endpoint, a Postgres server and an S3 server on loopback."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoi_assets_tests.llm.chat_server import KEY, Answer, Server
from hoi_assets_tests.postgres_server import postgres
from hoi_assets_tests.s3_server import bucket_home, s3_server

__all__ = ["bucket_home", "postgres", "s3_server"]

Start = Callable[..., Server]

# These train, render or run Dagster jobs; `make test-fast` leaves them out.
SLOW_FILES = (
    "evaluation/test_benchmark_scores.py",
    "evaluation/test_report",
    "evaluation/test_suites.py",
    "llm/test_image_",
    "llm/test_replies.py",
    "ppv/test_instance_folder.py",
    "store/test_bucket",
    "store/test_catalogue.py",
    "cli/test_homes.py",
    "cluster/test_browser.py",
    "cluster/test_full_disk.py",
    "cluster/test_head.py",
    "cluster/test_ray.py",
    "cli/test_taxonomy_changes.py",
    "cli/test_ui_address.py",
    "llm/test_waiting.py",
    "llm/test_credentials.py",
    "publishing/test_code_versions.py",
    "publishing/test_damaged_content.py",
    "publishing/test_taxonomy_changes.py",
    "store/test_home.py",
    "store/test_integrity.py",
    "store/test_ledger_server.py",
    "test_environment.py",
    "test_full_profile.py",
    "cli/test_rate.py",
    "defs/test_automation.py",
    "engines/",
    "export/",
    "parity/",
    "cli/test_score.py",
    "evaluation/test_folder_scores.py",
    "ppv/test_candidates.py",
    "test_rounds.py",
    "publishing/test_validation.py",
    "publishing/test_write_audit_publish.py",
    "defs/test_browser.py",
    "rating/test_browser.py",
    "rating/test_crash.py",
    "test_deploy.py",
    "test_detailscribe_pipeline.py",
    "test_detailscribe_correctors.py",
    "detailscribe/test_repair_masks.py",
    "ppv/test_auto_proposer.py",
    "test_environment.py",
    "test_paper_profiles.py",
    "test_ppv_pipeline.py",
    "test_wheel.py",
    "tinyworld/",
)


# The longest first: of one that is begun last, the other processes would wait for the end.
LONG_FILES = (
    "test_ppv_pipeline.py",
    "tinyworld/weights/test_training.py",
    "defs/test_browser.py",
    "test_proofs.py",
    "defs/test_automation.py",
    "cli/test_queries.py",
    "publishing/test_postgres_away.py",
    "test_two_cards.py",
    "engines/test_batch_sizes.py",
    "engines/sdxl/test_lora.py",
    "test_rounds.py",
    "test_full_profile.py",
    "test_benchmarks.py",
    "publishing/test_full_disk.py",
    "test_detailscribe_pipeline.py",
    "test_paper_profiles.py",
    "test_wheel.py",
    "evaluation/test_folder_scores.py",
    "test_environment.py",
)

ROOT = Path(__file__).parent
FAST = "not slow"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "not slow"` the files of `SLOW_FILES` are not even imported."""
    inside = collection_path.is_relative_to(ROOT) and config.option.markexpr == FAST
    return True if inside and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of `SLOW_FILES` as slow, and put those of `LONG_FILES` first."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(_inside(item.path), len(places)))


def _inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_slow(path: Path) -> bool:
    inner = _inside(path)
    return f"{inner}/".startswith(SLOW_FILES) or inner.startswith(SLOW_FILES)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """A test's settings in the environment end with it; `--profile` of `hoi` sets one there."""
    before = {name: value for name, value in os.environ.items() if name.startswith("HOI_")}
    yield
    for name in [name for name in os.environ if name.startswith("HOI_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A test begins with one thread of torch: a pipeline that ran in this process before it has set
    as many as its profile says, and threads of several test processes wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    yield


@pytest.fixture(scope="module", autouse=True)
def own_models() -> Iterator[None]:
    """A file of tests begins with no loaded model: one of equal weights that another file left in
    the cache may hold a LoRA, or a name and limits of its own."""
    cache = sys.modules.get("hoi_assets.engines.model_cache")
    if cache is not None and cache.cached_keys():
        cache.clear()
        gc.freeze()  # what is left stays; the collections of later tests need not look at it
    yield


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a server that sends the replies in turn, the last one again and again.

    A reply is an `Answer`, a text, or anything else, which is sent as JSON. A behaviour (see
    `Server`) may replace the replies afterwards: `server.behaviour = …`.
    """
    monkeypatch.setenv("HOI_API_KEY", KEY)
    servers: list[Server] = []

    def start(*replies: Any) -> Server:
        def behaviour(request: dict[str, Any], number: int) -> Answer:
            reply = replies[min(number, len(replies) - 1)]
            if isinstance(reply, Answer):
                return reply
            return Answer(reply if isinstance(reply, str) else json.dumps(reply))

        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
