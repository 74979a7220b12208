"""One published version: its record and its content."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_folder, files_below
from hoi_assets.store.places import place_folder, place_name

if TYPE_CHECKING:
    import polars as pl

VERSION_DIGITS = 16


@dataclass(frozen=True)
class Published:
    """One version in the store.

    Attributes:
        version: 16 hex digits, the hash of the content.
        path: folder of its files.
        inputs: what it was made from; parents as {"asset" or "asset/partition": version}.
        parents: versions it was made from that `inputs` does not name; the same form.
        run_id: the run that published it.
        published_at: ISO 8601, UTC.
    """

    asset: str
    partition: str | None
    version: str
    path: Path
    inputs: dict[str, Any]
    run_id: str | None
    published_at: str
    parents: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`asset` or `asset/partition`, as `inputs` name parents."""
        return place_name(self.asset, self.partition)

    def file(self, name: str) -> Path:
        """Path of a file or folder of this version.

        Raises:
            HoiError: there is no such file, or the version was pruned.

        Example:
            >>> published.file("lora/pytorch_lora_weights.safetensors")  # doctest: +SKIP
        """
        path = self.path / name
        if not path.exists():
            here = ", ".join(file for file, _ in files_below(self.path)[:10])
            raise HoiError(
                f"{self.name} version {self.version} has no {name!r}; it has: {here or 'nothing'}",
                f"materialise {self.name} again" if not here else "name one of these",
            )
        return path

    def table(self, name: str) -> "pl.DataFrame":
        """The table `<name>.parquet`. Raises as `file`.

        Example:
            >>> store.require("hoi_dataset").table("rows")  # doctest: +SKIP
        """
        import polars as pl

        from hoi_assets.store.tables import with_current_names

        return with_current_names(pl.read_parquet(self.file(f"{name}.parquet"), glob=False))

    def json(self, name: str) -> Any:
        """The value in `<name>.json`. Raises as `file`.

        Example:
            >>> store.require("verifier").json("thresholds")  # doctest: +SKIP
        """
        return json.loads(self.file(f"{name}.json").read_text(encoding="utf-8"))

    def verify(self) -> None:
        """Recompute the hash of the content.

        Raises:
            HoiError: the files are not those that were published.

        Example:
            >>> store.require("verifier").verify()  # doctest: +SKIP
        """
        found = content_version(self.path)
        if found != self.version:
            raise HoiError(
                f"{self.name} version {self.version} was altered: its files hash to {found}",
                f"materialise {self.name} again with force: the altered files are set aside",
            )

    def as_record(self) -> dict[str, Any]:
        """The publication as JSON-able data; the path follows from the rest."""
        return {
            "asset": self.asset,
            "partition": self.partition,
            "version": self.version,
            "inputs": self.inputs,
            "run_id": self.run_id,
            "published_at": self.published_at,
            "parents": self.parents,
        }

    @staticmethod
    def from_record(home: Path, record: dict[str, Any]) -> "Published":
        """The publication that `as_record` wrote.

        Raises:
            KeyError, TypeError: data of another form.
        """
        asset, partition, version = record["asset"], record["partition"], record["version"]
        return Published(
            asset=asset,
            partition=partition,
            version=version,
            path=place_folder(home, asset, partition) / "versions" / version,
            inputs=record["inputs"],
            run_id=record["run_id"],
            published_at=record["published_at"],
            parents=record["parents"],
        )


def content_version(folder: Path) -> str:
    """The version that the content of `folder` has: 16 hex digits.

    Example:
        >>> content_version(Path("data/taxonomy"))  # doctest: +SKIP
        '5d41402abc4b2a76'
    """
    return digest_folder(folder)[:VERSION_DIGITS]
