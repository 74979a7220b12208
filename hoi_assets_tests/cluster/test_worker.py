"""What a worker and the wiring do, without a cluster."""

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.cluster.resources import Resources, resources_of
from hoi_assets.cluster.worker import KEPT_FOLDERS, Worker, files_of
from hoi_assets.defs.executors import RAY_TAG, SHARED_OUT, op_tags, shares_out
from hoi_assets.defs.project import load_project
from hoi_assets.engines.batch_map import (
    BatchMap,
    BatchTask,
    Compute,
    in_chunks,
    map_batches,
    require_model,
    use,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Ray, Settings, load_settings
from hoi_assets.store.disk import DiskFull
from hoi_assets.store.weights import model_digest
from hoi_assets.yaml_file import YamlError


@dataclass(frozen=True, kw_only=True)
class Reading(BatchTask[str, str]):
    """Reads files of its one folder."""

    def run(self, batch: Sequence[str]) -> Iterator[str]:
        (folder,) = self.folders.values()
        for name in batch:
            yield f"{folder}: {(Path(folder) / name).read_text(encoding='utf-8')}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "home" / "lora" / "inner").mkdir(parents=True)
    (tmp_path / "home" / "lora" / "a").write_text("one", encoding="utf-8")
    (tmp_path / "home" / "lora" / "inner" / "b").write_text("two", encoding="utf-8")
    return tmp_path / "home" / "lora"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of another machine."""
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    return tmp_path / "node"


def test_a_worker_reads_its_own_copy_of_a_folder_and_asks_for_it_once(
    folder: Path, node: Path
) -> None:
    task = Reading(compute=Compute("cpu", 1), folders={"abc": str(folder)})
    asked: list[str] = []

    def fetch() -> dict[str, bytes]:
        asked.append("abc")
        return dict(files_of(str(folder)))

    worker = Worker(None)
    for _ in range(2):
        found = worker.run(task, ["a", "inner/b"], {"abc": fetch})
        own = node / f"hoi-assets-{os.getuid()}" / "abc"
        assert found == [f"{own}: one", f"{own}: two"]
    assert asked == ["abc"]
    assert list(map_batches(task, [["a"]], lambda batch: batch)) == [f"{folder}: one"]


def test_a_node_keeps_the_folders_that_were_used_last(folder: Path, node: Path) -> None:
    worker, content = Worker(None), files_of(str(folder))
    task = Reading(compute=Compute("cpu", 1))
    root = node / f"hoi-assets-{os.getuid()}"
    for number in range(KEPT_FOLDERS + 3):
        name = f"folder {number}"
        worker.run(replace(task, folders={name: ""}), ["a"], {name: lambda: content})
        if number > 0:
            worker.run(replace(task, folders={"folder 0": ""}), ["a"], {"folder 0": dict})
        for used, one in enumerate(sorted(root.iterdir(), key=lambda one: one.stat().st_mtime_ns)):
            os.utime(one, (used, used))  # coarse clocks of some file systems
    kept = {one.name for one in root.iterdir()}
    assert len(kept) == KEPT_FOLDERS and "folder 0" in kept and "folder 1" not in kept


def test_a_full_or_forbidden_disk_of_a_node_is_named(folder: Path, node: Path) -> None:
    (node / f"hoi-assets-{os.getuid()}").write_text("in the way", encoding="utf-8")
    task = Reading(compute=Compute("cpu", 1), folders={"abc": str(folder)})
    with pytest.raises(HoiError, match=r"cannot write .*abc: .*\n.*TMPDIR"):
        Worker(None).run(task, ["a"], {"abc": dict})


def test_another_model_than_the_steps_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    ref = ModelRef(source=str(folder))
    digest = model_digest(ref)
    require_model(ref, digest)
    (folder / "config.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(HoiError, match="is not the one that the step began with"):
        require_model(ref, digest)


def test_errors_travel_between_processes() -> None:
    for error in (
        HoiError("a thing", "fix it"),
        DiskFull(Path("/disk")),
        YamlError(["line 1: wrong"], "correct it", "profile x"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), again.what, again.remedy) == (str(error), error.what, error.remedy)


def test_resources_come_from_the_settings_by_asset() -> None:
    tiny = load_settings("tiny")
    ray = Ray.model_validate(
        {
            "num_cpus": 2,
            "memory_gb": 8,
            "resources": {"disk": 1},
            "assets": {"refined_images": {"num_gpus": 0.5, "memory_gb": 24}},
        }
    )
    settings = tiny.model_copy(update={"ray": ray})
    assert resources_of(tiny, "candidate_images") == Resources(0, tiny.threads)
    assert resources_of(settings, "candidate_images") == Resources(0, 2, 8 * 10**9, {"disk": 1})
    assert resources_of(settings, "refined_images") == Resources(0.5, 2, 24 * 10**9, {"disk": 1})
    on_gpu = tiny.model_copy(update={"device": "cuda"})
    assert resources_of(on_gpu, "candidate_images") == Resources(1, 1)


def test_a_node_holds_as_many_workers_as_its_scarcest_resource() -> None:
    worker = Resources(0.5, 2, 4 * 10**9, {"H100": 0.001})
    node = {"GPU": 8.0, "CPU": 30.0, "memory": 64e9, "H100": 1.0}
    assert worker.fitting(node) == 15
    assert worker.fitting(node | {"GPU": 2.0}) == 4
    assert worker.fitting({"CPU": 30.0, "memory": 64e9}) == 0
    assert Resources(0.1, 0).fitting({"GPU": 0.3}) == 3


@pytest.fixture
def settings() -> Settings:
    return load_settings("tiny").model_copy(update={"device": "cuda"})


def test_steps_that_train_take_a_gpu_and_those_that_share_out_take_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load_project("tiny").graph
    assert set(SHARED_OUT) <= {stage.name for stage in graph.stages}
    assert not any(op_tags(settings)(stage) for stage in graph.stages)
    monkeypatch.setenv("HOI_EXECUTOR", "ray")
    tags = {stage.name: dict(op_tags(settings)(stage)) for stage in graph.stages}
    of_gpu = {RAY_TAG: {"num_cpus": 1.0, "num_gpus": 1.0}}
    trains = ("category_loras", "verifier_training_pairs", "verifier", "finetuned_model")
    assert tags == {name: of_gpu if name in trains else {} for name in tags}


def test_a_step_with_a_model_of_its_own_computes_by_itself(settings: Settings) -> None:
    models = settings.models.model_copy(update={"proposer": settings.models.base})
    own = settings.model_copy(update={"models": models})
    assert shares_out(settings, "candidate_images") and not shares_out(own, "candidate_images")
    assert not shares_out(settings, "category_loras")


def test_nothing_to_compute_asks_for_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    task = Reading(compute=Compute("cpu", 1))
    use(RayBatchMap(load_settings("tiny"), lambda asset: True))
    try:
        assert list(map_batches(task, [], lambda batch: batch)) == []
        with pytest.raises(HoiError, match="RAY_ADDRESS is not set"):
            list(map_batches(task, [["a"]], lambda batch: batch))
    finally:
        use(BatchMap())


def test_chunks_hold_every_item_once() -> None:
    assert in_chunks([], 3) == []
    assert in_chunks(range(7), 3) == [range(3), range(3, 6), range(6, 7)]
