"""A Ray cluster of three nodes on loopback, and a home that is ready for candidates."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hoi_assets.defs.project import load_project
from hoi_assets.engines import batch_map, model_cache
from hoi_assets.publishing.asset import PLATFORM
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.loopback import LoopbackCluster, ray_variables
from hoi_assets_tests.pipeline_fixture import write_profile

CATEGORY = "worn"
BEFORE = ("base_prompt_taxonomy", "detailed_prompts", "instance_images", "category_loras")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[LoopbackCluster]:
    """Its nodes end with the session."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'hoi-assets[ray]'")
    pytest.importorskip("dagster_ray", reason="dagster-ray is not installed")
    import ray

    with ray_variables():
        cluster = LoopbackCluster()
        yield cluster
        ray.shutdown()
        cluster.close()


@pytest.fixture(scope="session")
def ray_address(ray_cluster: LoopbackCluster) -> str:
    """Address of the head."""
    return ray_cluster.address


@pytest.fixture(scope="session")
def warm() -> list[batch_map.BatchMap]:
    """The map that a test leaves behind, for the next one: its workers keep their models."""
    return []


@pytest.fixture
def on_ray(
    ray_address: str, warm: list[batch_map.BatchMap], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What this process computes is shared out over the cluster."""
    monkeypatch.setenv("HOI_EXECUTOR", "ray")
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    if warm:
        batch_map.use(warm.pop())
    yield ray_address
    warm.append(batch_map.in_use())
    batch_map.use(batch_map.BatchMap())


@dataclass(frozen=True)
class Ready:
    """A home with all that candidates are made from, and the version of the candidates.

    Attributes:
        drawn: the candidates' rows, drawn in one process.
    """

    profile: Path
    home: Path
    version: str
    drawn: Any

    def copy(self, home: Path) -> Path:
        """Another home in the same state."""
        shutil.copytree(self.home, home)
        return home


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Candidates made in this process, after the state before was copied."""
    start = {"max_train_steps": 1, "num_class_images": 2, "checkpointing_steps": 1}
    folder = tmp_path_factory.mktemp("ready")
    profile = write_profile(
        folder,
        lora=start,
        candidates={"per_prompt": 2},
        sampling={"num_inference_steps": 2, "batch_size": 4},
    )
    made(profile, folder / "home", BEFORE)
    shutil.copytree(folder / "home", folder / "alone")
    made(profile, folder / "alone", ("candidate_images",))
    model_cache.clear()
    published = Store(folder / "alone").require("candidate_images", CATEGORY)
    return Ready(profile, folder / "home", published.version, published.table("rows"))


def made(profile: Path, home: Path, assets: tuple[str, ...], category: str = CATEGORY) -> None:
    """Materialise assets of a category in this process."""
    project = load_project(str(profile), home)
    resource = project.pipelines.resources
    assert resource is not None
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            project.assets,
            selection=list(assets),
            partition_key=category,
            resources={PLATFORM: resource[PLATFORM]},
            instance=instance,
        )
    assert done.success


def candidates(home: Path) -> Any:
    """The version in force."""
    return Store(home).require("candidate_images", CATEGORY)
