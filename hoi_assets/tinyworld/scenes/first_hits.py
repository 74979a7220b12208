"""What each pixel's middle ray meets: the noise-free geometry of a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.camera import Camera
from hoi_assets.tinyworld.scenes.mitsuba_scene import make_sensor
from hoi_assets.tinyworld.scenes.rigid import Array


@dataclass(frozen=True)
class FirstHits:
    """What each pixel's middle ray meets: shape's name ("" for none), triangle, normal."""

    name: NDArray[np.str_]
    face: NDArray[np.int64]
    normal: Array


def trace_first_hits(mi: Any, scene: Any, camera: Camera, size: int) -> FirstHits:
    """Cast one ray through the middle of each pixel of a `size` px picture."""
    sensor = make_sensor(mi, camera, size)
    # A box filter and one unjittered ray a pixel keep the indices whole.
    sensor["film"]["rfilter"] = {"type": "box"}
    sensor["sampler"] = {"type": "stratified", "sample_count": 1, "jitter": False}
    integrator = mi.load_dict(
        {"type": "aov", "aovs": "shape:shape_index,face:prim_index,normal:sh_normal"}
    )
    seen = np.array(
        mi.render(scene, sensor=mi.load_dict(sensor), integrator=integrator, spp=1, seed=0)
    )
    names = np.array(["", *(shape.id() for shape in scene.shapes())])
    index = np.round(seen[..., 0]).astype(np.int64)
    return FirstHits(names[index], np.round(seen[..., 1]).astype(np.int64), seen[..., 2:5])
