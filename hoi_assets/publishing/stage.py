"""The contract of a stage: one step of the line, as a pure function over published versions.

    @stage(
        "candidate_images",
        partitions="hand_pose",
        deps=["detailed_prompts", "category_loras"],
        code_version="1",
        recipe=["hoi_assets/engines/sdxl/sampling.py"],
        settings=["sampling", "candidates"],
        models=["base"],
        group="prompt_propose_verify",
        description="…",
    )
    def candidate_images(work: Work, out: Staging) -> Result:
        prompts = work.parent("detailed_prompts").table("rows")
        out.write_table("rows", rows)
        work.record("image_id", rows)
        return Result(metadata={"contact sheet": Image.of(sheet), "made": rows.height})

What happens around the function (`carry.py` does it, in this order):

1. The lock of (asset, partition) is taken, so that two runs never make the same thing at once.
2. The *inputs* are gathered: versions of all parents (`deps`), `code_version`, the named sections
   of the settings, digests of the named models' weights, `inputs(work)`, and the gate's rules.
   When the version in force was made from equal inputs and none of its rows failed, nothing is
   computed: the version, its metadata and its gate's result are told again ("unchanged"). Where
   only the gate's rules changed, they are asked of the version in force. A run tagged
   `hoi/force: true`, or the step's config `force: true`, calls the function regardless.
3. The function writes into `out`, a staging folder. What it makes must follow from its inputs
   alone: no clock, no seconds, nothing of this machine (seconds go to the metadata).
4. The gate (`suites.py`) looks at every table in staging, and at `Result.audit` where given.
5. It holds: the folder is published under the hash of its content (= Dagster's DataVersion). It
   fails: the folder goes to quarantine with the evidence, the step fails, and the last published
   version stays in force for everything downstream.

No Dagster here: a stage is called in a test as `candidate_images(work, out)`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.publishing.metadata import Image, Markdown, Table, Value
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Staging, Store
from hoi_assets.taxonomy import Taxonomy, load_taxonomy

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Image", "Markdown", "Result", "Stage", "Table", "Work", "stage"]

Partitions = Literal["hand_pose", "scenario"]
Keys = Mapping[Partitions, tuple[str, ...]]

ONE_OF: dict[Partitions, str] = {"hand_pose": "category", "scenario": "scenario"}
LEDGER_STATUS = {"made": "accepted"}  # tables may say `made`; the ledger knows three ends


@dataclass(frozen=True)
class Result:
    """What a stage gives back; what it made lies in its staging folder.

    Args:
        metadata: shown with the asset in the UI. Pictures over 400 kB are scaled down.
        audit: further tables for the gate by name, beside every `*.parquet` of the staging folder;
            a name in both takes this one.
    """

    metadata: Mapping[str, Value] = field(default_factory=dict)
    audit: Mapping[str, "pl.DataFrame"] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a stage may read.

    Attributes:
        stage_name: the stage this is for.
        partition: the hand-pose category or scenario; None for a stage without partitions.
        keys: all keys of each kind of partitions, in order.
        parents_in_force: by name of each of `deps`; use `parent` and `parents`.
        run_id: Dagster's run, for provenance only.
        force: asked to compute again though the inputs are unchanged.
        say: a line to Dagster's log and the terminal.
        recorded: what `record` was told.
    """

    settings: Settings
    store: Store
    stage_name: str
    partition: str | None
    keys: Keys
    parents_in_force: Mapping[str, "Published | dict[str, Published] | None"]
    parents_partitions: Mapping[str, Partitions | None] = field(default_factory=dict)
    run_id: str | None = None
    force: bool = False
    log: Log = print
    recorded: list[dict[str, Any]] = field(default_factory=list)

    @property
    def category(self) -> str:
        """The partition, for stages per hand pose."""
        return self._partition()

    @property
    def scenario(self) -> str:
        """The partition, for stages per scenario."""
        return self._partition()

    def _partition(self) -> str:
        if self.partition is None:
            raise TypeError("this stage has no partitions")
        return self.partition

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy as it stands on disk; name what you use of it in `inputs=`."""
        return read_taxonomy(self.settings.taxonomy_folder)

    def parent(self, name: str) -> Published:
        """The version in force of a parent: of the same partition, or of one without partitions.

        Raises:
            HoiError: nothing of it is published yet.
        """
        found = self._declared(name)
        if isinstance(found, dict):
            raise TypeError(f"{name} has partitions and this stage has none: use parents()")
        if found is None:
            return self.store.require(
                name, self.partition if self.parents_partitions.get(name) else None
            )
        return found

    def parents(self, name: str) -> dict[str, Published]:
        """Fan-in: the versions in force of a partitioned parent, by key; the published only.

        Raises:
            HoiError: not one partition is published.
        """
        found = self.published(name)
        if not found:
            called = ONE_OF[self.parents_partitions[name] or "hand_pose"]
            raise HoiError(
                f"{name} is not published for any {called}",
                f"materialise {name} for at least one {called}; see `hoi stale`",
            )
        return found

    def published(self, name: str) -> dict[str, Published]:
        """As `parents`; none where not one partition is published."""
        found = self._declared(name)
        if not isinstance(found, dict):
            raise TypeError(f"{name} has one version for this stage: use parent()")
        return found

    def missing(self, name: str) -> list[str]:
        """Keys without a published version of a partitioned parent."""
        partitions = self.parents_partitions[name]
        found = self.published(name)
        return [key for key in self.keys[partitions] if key not in found] if partitions else []

    def record(
        self,
        id_column: str,
        table: "pl.DataFrame",
        *,
        status: str = "status",
        reason: str = "reason",
    ) -> None:
        """Enter each row's end in the ledger, once the gate has spoken.

        Rows `failed` are tried again by the next run, though the inputs be unchanged.

        Args:
            id_column: the row's identity within (stage, partition).
            status: column of accepted | made | rejected | failed.
            reason: column of text or null; it may be absent.
        """
        reasons = table[reason] if reason in table.columns else [None] * table.height
        for row_id, state, why in zip(table[id_column], table[status], reasons, strict=True):
            self.recorded.append(
                {
                    "row_id": str(row_id),
                    "status": LEDGER_STATUS.get(state, state),
                    "reason": why,
                }
            )

    def _declared(self, name: str) -> "Published | dict[str, Published] | None":
        if name not in self.parents_in_force:
            raise TypeError(f"{name} is not among the deps of this stage")
        return self.parents_in_force[name]


def read_taxonomy(folder: Path) -> Taxonomy:
    """`load_taxonomy`, read once per state of the folder's files. Raises as it does."""
    files = sorted(folder.rglob("*.y*ml"))
    seen = [(path, path.stat()) for path in files]
    return _taxonomy(folder, tuple((p, s.st_size, s.st_mtime_ns) for p, s in seen))


@lru_cache(maxsize=4)
def _taxonomy(folder: Path, state: tuple[tuple[Path, int, int], ...]) -> Taxonomy:
    return load_taxonomy(folder)


StageFunction = Callable[[Work, Staging], Result]


@dataclass(frozen=True)
class Stage:
    """One declared stage; `stage` makes it. Calling it calls the function."""

    name: str
    function: StageFunction
    partitions: Partitions | None
    deps: tuple[str, ...]
    code_version: str
    recipe: tuple[str, ...]
    settings: tuple[str, ...]
    models: tuple[str, ...]
    inputs: Callable[[Work], Mapping[str, Any]] | None
    parents_in_inputs: bool
    optional: tuple[str, ...]
    group: str
    description: str
    kinds: tuple[str, ...]

    def __call__(self, work: Work, out: Staging) -> Result:
        return self.function(work, out)

    @property
    def module_file(self) -> Path:
        """The Python file that defines the function."""
        return Path(self.function.__code__.co_filename)


def stage(
    name: str,
    *,
    code_version: str,
    partitions: Partitions | None = None,
    deps: Sequence[str] = (),
    recipe: Sequence[str] = (),
    settings: Sequence[str] = (),
    models: Sequence[str] = (),
    inputs: Callable[[Work], Mapping[str, Any]] | None = None,
    parents_in_inputs: bool = True,
    optional: Sequence[str] = (),
    group: str = "default",
    description: str = "",
    kinds: Sequence[str] = (),
) -> Callable[[StageFunction], Stage]:
    """Declare a stage; see the module's head for what happens round it.

    Args:
        name: asset key; also the name of its suite in `suites.py`.
        code_version: raise it whenever the same inputs would now give another output.
        partitions: one step per key: `hand_pose` (category) or `scenario`.
        deps: names of the stages it reads. A parent with partitions other than the stage's own is
            a fan-in: `work.parents(name)` gives what is published, `work.missing(name)` the rest.
        recipe: files and folders (from the repository's root) that determine the output: templates,
            modules, config. A test fails when one changed and `code_version` did not; the module
            that defines the stage is always among them.
        settings: names of sections (or fields) of `Settings` that determine the output.
        models: names of `settings.models` whose weights determine the output.
        inputs: further inputs, JSON-able, e.g. the digest of a folder outside the store.
        parents_in_inputs: False where `inputs` already says what matters of the parents, so that a
            change elsewhere in a parent does not make this stage run again.
        optional: those of `deps` without partitions that may be unpublished; read them from
            `work.parents_in_force`.
        kinds: badges in the UI, e.g. "torch".
    """

    def declare(function: StageFunction) -> Stage:
        return Stage(
            name=name,
            function=function,
            partitions=partitions,
            deps=tuple(deps),
            code_version=code_version,
            recipe=tuple(recipe),
            settings=tuple(settings),
            models=tuple(models),
            inputs=inputs,
            parents_in_inputs=parents_in_inputs,
            optional=tuple(optional),
            group=group,
            description=description or (function.__doc__ or "").strip(),
            kinds=tuple(kinds),
        )

    return declare
