"""The dataset as WebDataset shards: `<split>-<number>.tar` with `<id>.png`, `.txt` and `.json`.

`webdataset.WebDataset(folder + "/train-{000000..000003}.tar")` opens them.
"""

import io
import json
import tarfile
from functools import partial
from pathlib import Path

from hoi_assets.export.c2pa import Sign, Signer, signed_by
from hoi_assets.export.cards import dataset_card
from hoi_assets.export.dataset import add_left_out
from hoi_assets.export.folder import Draft, Exported, Plan, export
from hoi_assets.export.pairs import Pairs, read_pairs
from hoi_assets.progress import Log
from hoi_assets.store.versions import Store


def export_webdataset(
    store: Store, folder: Path, log: Log = lambda _: None, signer: Signer | None = None
) -> Exported:
    """Export the dataset in force to `folder`; captions are the `.txt` files, byte for byte.

    Args:
        signer: gives every picture a C2PA manifest; None: the mark in XMP alone.

    Raises:
        HoiError: there is no dataset, or as `folder.export`.

    Example:
        >>> export_webdataset(store, Path("shards"))  # doctest: +SKIP
    """
    pairs = Pairs.open(store)

    def write(draft: Draft) -> None:
        for path in pairs.files:
            split, number = path.stem.rsplit("-", 1)
            name = f"{split}-{int(number):06d}.tar"
            draft.add(name, partial(_write, path, signer))
        add_left_out(pairs, draft)
        draft.add_text("README.md", dataset_card(pairs, "webdataset"))

    return export(folder, Plan("webdataset", pairs.made_from, signed_by(signer)), write, log)


def _write(source: Path, sign: Sign | None, target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for rows in read_pairs(source, sign):
            for row in rows:
                picture, text = row.pop("png"), row.pop("text")
                about = json.dumps(row, sort_keys=True, ensure_ascii=False)
                _add(tar, f"{row['id']}.png", picture)
                _add(tar, f"{row['id']}.txt", text.encode())
                _add(tar, f"{row['id']}.json", about.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # No owner and no time: equal pairs give equal bytes.
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))
