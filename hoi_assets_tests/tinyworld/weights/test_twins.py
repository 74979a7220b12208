"""Judges learn from twins: what is read of them, how they are sampled, and what a map is worth."""

from pathlib import Path

import torch

from hoi_assets.engines.vilt.defect_head import defect_loss
from hoi_assets.tinyworld.scenes.vocabulary import PARTS
from hoi_assets.tinyworld.weights.dense import cell_targets, map_quality, part_loss
from hoi_assets.tinyworld.weights.pairs import TwinSampler
from hoi_assets.tinyworld.weights.pictures import Pictures, read_pictures


def _twins(world: Path) -> Pictures:
    return read_pictures(world, "twins")


def test_twins_stand_side_by_side_and_differ_where_the_map_says(shapes_world: Path) -> None:
    twins = _twins(shapes_world)
    assert len(twins) == 120
    for index in range(0, len(twins), 2):
        spoilt, whole = twins.rows[index], twins.rows[index + 1]
        assert spoilt["scene_id"] == whole["scene_id"]
        assert spoilt["defects"] and not whole["defects"]
        assert whole["fidelity"] and not spoilt["fidelity"]
        differ = (twins.pixels[index] != twins.pixels[index + 1]).any(dim=0)
        assert torch.equal(differ, twins.dense[index, 1] == 1)
        assert not twins.dense[index + 1, 1].any()


def test_halves_and_mirrors_keep_pairs_and_their_truth_together(shapes_world: Path) -> None:
    learnt, held = _twins(shapes_world).halves()
    assert len(learnt) + len(held) == 120
    for part in (learnt, held, learnt.mirrored(), learnt.joined(learnt.mirrored())):
        assert all(bool(row["defects"]) == (n % 2 == 0) for n, row in enumerate(part.rows))
        differ = (part.pixels[0::2] != part.pixels[1::2]).any(dim=1)
        assert torch.equal(differ, part.dense[0::2, 1] == 1)
    assert not {row["grasp_id"] for row in learnt.rows} & {row["grasp_id"] for row in held.rows}


def test_a_batch_holds_each_defect_beside_its_twin(shapes_world: Path) -> None:
    pairs = TwinSampler(_twins(shapes_world)).sample(32, torch.Generator().manual_seed(0))
    assert pairs.spoilt == [True, False] * 16
    assert [chosen // 2 for chosen in pairs.chosen[::2]] == [
        chosen // 2 for chosen in pairs.chosen[1::2]
    ]


def test_cells_hold_the_shares_of_their_pixels(shapes_world: Path) -> None:
    dense = _twins(shapes_world).dense[:4]
    parts, spoilt = cell_targets(dense, 32)
    assert parts.shape == (4, len(PARTS), 32, 32) and spoilt.shape == (4, 1, 32, 32)
    assert torch.allclose(parts.sum(dim=1), torch.ones(4, 32, 32))
    assert torch.allclose(spoilt.mean(dim=(1, 2, 3)), dense[:, 1].float().mean(dim=(1, 2)))


def test_the_true_map_has_the_least_loss_and_points_right(shapes_world: Path) -> None:
    dense = _twins(shapes_world).dense[0:20:2]
    parts, spoilt = cell_targets(dense, 32)
    said, found = 20 * parts - 10, 20 * spoilt - 10
    assert part_loss(said, dense) < part_loss(said.flip(1), dense)
    kinds = torch.zeros(10, 2)
    right = defect_loss(found, kinds, spoilt, kinds)
    assert (right < defect_loss(-found, kinds, spoilt, kinds)).all()
    assert (right < defect_loss(found, kinds + 9, spoilt, kinds)).all()
    assert map_quality(found, dense)["map_points_right"] == 1
    assert map_quality(found, dense)["map_overlap"] > 0.9
    assert map_quality(found.flip(-1), dense)["map_overlap"] < 0.5
