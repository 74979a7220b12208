"""A model's digest names every file that its loader may read."""

from pathlib import Path

import pytest

from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest, model_fingerprint

FILES = (
    *("ImageReward.pt", "pytorch_model.bin", "model.safetensors", "old.pth", "all.ckpt"),
    *("config.json", "vocab.txt", "tokenizer/spiece.model"),
)


@pytest.mark.parametrize("digest_of", [model_digest, model_fingerprint])
@pytest.mark.parametrize("name", FILES)
def test_another_file_is_another_model(name: str, digest_of, tmp_path: Path) -> None:
    model = ModelRef(source=str(tmp_path))
    for one in (*FILES, "README.md"):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_bytes(b"weights")
    before = digest_of(model)
    (tmp_path / "README.md").write_bytes(b"another text")
    assert digest_of(model) == before
    (tmp_path / name).write_bytes(b"other weights")
    changed = digest_of(model)
    (tmp_path / name).unlink()
    assert len({before, changed, digest_of(model)}) == 3
