"""First hits by scan conversion agree with traced ones; needs the extra `scenes`."""

import numpy as np
import pytest

pytest.importorskip("mitsuba")
pytest.importorskip("anny")

from hoi_assets.tinyworld.scenes.camera import aim
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.render import Quality, view_stage
from hoi_assets.tinyworld.scenes.shards import TAXONOMY
from hoi_assets.tinyworld.scenes.solving import load_world, solve_group, stage_of_grasp
from hoi_assets.tinyworld.scenes.stage import Look

LOOK = Look("red", "plastic", "tan", "soft light", "grey wall", 5)


@pytest.mark.parametrize(
    ("category", "kind"),
    [("power_wrap", "mug"), ("index_press", "button"), ("platform", "bowl"), ("worn", "ring")],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_rasterised_hits_are_the_traced_ones(category, kind, mirrored):
    world = load_world(TAXONOMY)
    grasp, _, shape = solve_group(world, Group("twins", 1, 0, category, (kind,), "", ("clean",)))
    stage = stage_of_grasp(grasp, shape)
    stage = stage.mirrored() if mirrored else stage
    flip = [-1.0 if mirrored else 1.0, 1.0, 1.0]
    for view in ("front", "above"):
        camera = aim(stage, grasp.views[view] * flip, seed=1)
        views = [
            view_stage(stage, camera, LOOK, Quality(rasterised=fast)) for fast in (False, True)
        ]
        traced, rasterised = (each.seen for each in views)
        names = [np.array(seen.names)[seen.shape] for seen in (traced, rasterised)]
        same = names[0] == names[1]
        assert same.mean() > 0.99
        shown = same & np.isin(names[0], list(views[0].pixels))
        assert (traced.face == rasterised.face)[shown].mean() > 0.99
        apart = np.linalg.norm(traced.normal - rasterised.normal, axis=-1)
        assert np.median(apart[shown]) < 1e-3
