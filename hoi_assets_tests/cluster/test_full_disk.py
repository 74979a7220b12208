"""A full disk on one node of the cluster, on which the workers are."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.engines import batch_map
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.conftest import CATEGORY, Ready, made
from hoi_assets_tests.cluster.loopback import LoopbackCluster

SIZE, ROOM = 8 << 20, 16 << 10


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk with little room; a file `filler` on it takes the rest."""
    folder = Path(tempfile.mkdtemp(prefix="hoi-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(free - ROOM))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_of_a_node_is_named_with_the_node_and_the_step_goes_on_once_there_is_room(
    ray_cluster: LoopbackCluster, on_ray: str, ready: Ready, small_disk: Path, tmp_path: Path
) -> None:
    home, profile = ready.copy(tmp_path / "home"), tmp_path / "small.yaml"
    text = ready.profile.read_text(encoding="utf-8")
    profile.write_text(f"{text}ray: {{resources: {{small_disk: 0.1}}}}\n", encoding="utf-8")
    current = batch_map.in_use()
    if isinstance(current, RayBatchMap):
        current.close()
    with ray_cluster.another_node("small_disk", {"TMPDIR": str(small_disk)}):
        named = rf"(?s)cannot write {small_disk}/.*No space left on device.*make room there"
        with pytest.raises(Exception, match=named):
            made(profile, home, ("candidate_images",))
        assert Store(home).current("candidate_images", CATEGORY) is None
        assert not [
            path for path in small_disk.rglob("*") if path.is_file() and path.name != "filler"
        ]
        (small_disk / "filler").unlink()
        made(profile, home, ("candidate_images",))
        batch_map.in_use().close()  # type: ignore[attr-defined]
    assert Store(home).require("candidate_images", CATEGORY).version == ready.version
