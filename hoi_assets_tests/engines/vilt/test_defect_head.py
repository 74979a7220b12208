"""The verifier's defect map: where cells lie, what they do to fidelity, and how they are stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_assets.engines.vilt.defect_head import (
    CELLS_PER_SIDE,
    DEFECT_HEAD_FILE,
    build_defect_head,
    cell_logits,
    evidence,
)
from hoi_assets.engines.vilt.verifier import (
    VerifierModel,
    forward_pairs,
    load_verifier,
    save_verifier,
    score_pairs,
)
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import picture

KINDS = ("extra_finger", "melted_hand")


def _with_map(verifier: VerifierModel) -> VerifierModel:
    head = build_defect_head(verifier.model.config.hidden_size, KINDS)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (head["map"], head["kinds"]):
            layer.weight.normal_(generator=draws)
    return replace(verifier, defect_head=head)


def test_cells_lie_in_their_patch() -> None:
    layer = build_defect_head(1, KINDS)["map"]
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.copy_(torch.arange(4) / 10)
    patches = torch.arange(9.0).reshape(1, 9, 1)
    cells = cell_logits(layer, patches)[0, 0]
    assert cells.shape == (3 * CELLS_PER_SIDE, 3 * CELLS_PER_SIDE)
    assert torch.allclose(cells[2:4, 4:6], torch.tensor([[5.0, 5.1], [5.2, 5.3]]))


def test_evidence_is_that_of_the_strongest_cells() -> None:
    cells = torch.full((2, 1, 20, 20), -5.0)
    cells[1, 0, 3, :4] = torch.tensor([7.0, 8.0, 9.0, 10.0])
    assert torch.allclose(evidence(cells), torch.tensor([-5.0, 8.5]))


def test_a_fresh_map_leaves_the_scores_as_they_are(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    fresh = replace(
        verifier, defect_head=build_defect_head(verifier.model.config.hidden_size, KINDS)
    )
    images, texts = [picture(n) for n in range(3)], ["a red ball"] * 3
    plain, mapped = (forward_pairs(one, images, texts) for one in (verifier, fresh))
    np.testing.assert_array_equal(plain, mapped)


def test_the_map_counts_against_fidelity_alone(vilt_folder: Path) -> None:
    verifier = load_verifier(vilt_folder)
    images, texts = [picture(n) for n in range(3)], ["a red ball"] * 3
    plain, mapped = (forward_pairs(one, images, texts) for one in (verifier, _with_map(verifier)))
    assert (mapped[:, 0] < plain[:, 0]).all()
    np.testing.assert_array_equal(mapped[:, 1], plain[:, 1])


def test_a_stored_map_comes_back_and_is_part_of_the_digest(
    vilt_folder: Path, tmp_path: Path
) -> None:
    verifier = _with_map(load_verifier(vilt_folder))
    folder, random_state = save_verifier(verifier, tmp_path / "mapped"), torch.get_rng_state()
    again = load_verifier(folder)
    # What is drawn next does not depend on whether the verifier was in the cache.
    assert torch.equal(torch.get_rng_state(), random_state)
    assert again.defect_head.kind_names == KINDS
    assert torch.equal(again.defect_head["map"].weight, verifier.defect_head["map"].weight)
    assert again.digest == verifier.digest != load_verifier(vilt_folder).digest


def test_a_damaged_map_is_named(vilt_folder: Path, tmp_path: Path) -> None:
    folder = save_verifier(_with_map(load_verifier(vilt_folder)), tmp_path / "mapped")
    (folder / DEFECT_HEAD_FILE).write_bytes(b"nothing")
    with pytest.raises(HoiError, match=DEFECT_HEAD_FILE):
        load_verifier(folder)


def test_scores_say_where_and_of_which_kind(vilt_folder: Path) -> None:
    verifier = _with_map(load_verifier(vilt_folder))
    images, texts = [picture(n) for n in range(3)], ["a red ball"] * 3
    scores = score_pairs(verifier, images, texts)
    assert scores.maps is not None and scores.kinds is not None
    patches = verifier.model.config.image_size // verifier.model.config.patch_size
    assert scores.maps.shape == (3, CELLS_PER_SIDE * patches, CELLS_PER_SIDE * patches)
    assert ((scores.maps > 0) & (scores.maps < 1)).all()
    assert set(scores.kinds) <= set(KINDS)
    alone = score_pairs(verifier, images[2:], texts[2:], [2])
    np.testing.assert_array_equal(alone.maps, scores.maps[2:])
    blind = score_pairs(load_verifier(vilt_folder), images, texts)
    assert blind.maps is None and blind.kinds is None
