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
    """What the middle rays of a picture (h, w) meet.

    Attributes:
        names: of the scene's shapes; the first is "" for a ray that meets nothing.
        shape: place in `names` (h, w).
        face: triangle (h, w) of the shape.
        normal: shading normal (h, w, 3).
    """

    names: tuple[str, ...]
    shape: NDArray[np.int64]
    face: NDArray[np.int64]
    normal: Array

    def where(self, name: str) -> NDArray[np.bool_]:
        """Pixels (h, w) that show the shape called `name`."""
        if name not in self.names:
            return np.zeros(self.shape.shape, dtype=bool)
        return self.shape == self.names.index(name)

    def ranks(self) -> NDArray[np.int64]:
        """Each pixel's shape as its place (h, w) among the names of those that show, sorted."""
        shown = np.unique(self.shape)
        order = np.argsort([self.names[place] for place in shown], kind="stable")
        rank = np.zeros(len(self.names), dtype=np.int64)
        rank[shown[order]] = np.arange(len(shown))
        return rank[self.shape]


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
    names = ("", *(str(shape.id()) for shape in scene.shapes()))
    shape, face = (np.round(seen[..., k]).astype(np.int64) for k in (0, 1))
    return FirstHits(names, shape, face, seen[..., 2:5])
