import numpy as np
import pytest

pytest.importorskip("trimesh")

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import OBJECTS
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object

GRIPS = {
    "wrap": ("bottle", "can", "stick", "mug"),
    "occlude": ("box", "book"),
    "sphere": ("ball", "apple", "egg"),
    "hook": ("bag", "stick", "bucket"),
    "pinch": ("key", "card", "coin", "bead", "die"),
    "pinch_broad": ("book", "phone", "card"),
    "tripod": ("pen", "brush", "spoon"),
    "support": ("plate", "book", "ball"),
    "press": ("button", "bell", "phone"),
    "wear": ("ring", "watch"),
    "both": ("ball", "box", "bowl"),
}
PAIRS = [(kind, grip) for grip, kinds in GRIPS.items() for kind in kinds]


@pytest.mark.parametrize("kind", OBJECTS)
def test_distance_is_zero_on_the_surface_and_has_the_right_sign_off_it(kind):
    shape = make_object(kind)
    vertices = np.asarray(shape.mesh.vertices)
    normals = np.asarray(shape.mesh.vertex_normals)
    # Parts overlap: a vertex may lie inside another part, never outside all of them.
    assert shape.signed_distance(vertices).max() < 2e-4
    outer = np.abs(shape.signed_distance(vertices)) < 2e-4
    assert outer.mean() > 0.4
    step = 2e-4
    outside = shape.signed_distance(vertices[outer] + step * normals[outer])
    assert (outside > 0).mean() > 0.8


@pytest.mark.parametrize("kind", OBJECTS)
def test_far_distance_never_exceeds_the_distance_to_the_mesh(kind):
    shape = make_object(kind)
    low, high = shape.bounds
    rng = np.random.default_rng(0)
    points = (low + high) / 2 + rng.normal(size=(60, 3)) * (high - low)
    nearest = np.linalg.norm(points[:, None] - np.asarray(shape.mesh.vertices)[None], axis=-1).min(
        axis=1
    )
    assert (shape.signed_distance(points) <= nearest + 1e-4).all()


@pytest.mark.parametrize("kind", OBJECTS)
def test_larger_size_makes_a_larger_object_of_one_paint_and_unit_normals(kind):
    small, large = make_object(kind, size=0.0), make_object(kind, size=1.0)
    assert np.ptp(large.bounds, axis=0).max() > np.ptp(small.bounds, axis=0).max()
    roles = {surface.role for surface in large.surfaces}
    assert "colour" in roles
    for surface in large.surfaces:
        lengths = np.linalg.norm(surface.normals, axis=1)
        assert np.allclose(lengths, 1.0, atol=1e-6)


@pytest.mark.parametrize(("kind", "grip"), PAIRS)
def test_grip_frame_is_a_rotation_with_its_origin_at_the_gripped_part(kind, grip):
    shape = make_object(kind, grip)
    assert np.allclose(shape.axes @ shape.axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(shape.axes) == pytest.approx(1.0)
    gap = float(shape.signed_distance(np.zeros((1, 3)))[0])
    if grip == "wear":
        # Nothing in the hole but the finger.
        assert gap > 0.005
    elif grip in ("support", "press"):
        assert abs(gap) < 1e-3
    elif kind not in ("mug", "bowl", "bead"):  # hollow where they are gripped
        assert gap < 0.001
    assert min(shape.half_extents) > 0


def test_pinched_and_pressed_things_lie_where_the_frame_says():
    key = make_object("key", "pinch")
    assert key.half_extents[0] < 0.003
    assert key.bounds[1, 2] > 0.03 and -0.013 < key.bounds[0, 2] < -0.007
    book = make_object("book", "pinch_broad")
    assert book.bounds[0, 2] == pytest.approx(-0.028, abs=0.002)
    for kind in GRIPS["press"]:
        assert make_object(kind, "press").bounds[1, 2] < 0.002
    for kind in GRIPS["support"]:
        assert make_object(kind, "support").bounds[0, 2] > -0.002


def test_a_worn_ring_fits_the_finger_it_is_made_for():
    ring = make_object("ring", "wear", hole=(0.008, 0.010))
    inside = ring.signed_distance(np.array([[0.0079, 0, 0], [0, -0.0099, 0], [0.0, 0.0, 0.0]]))
    assert (inside > 0).all()
    assert ring.signed_distance(np.array([[0, -0.0110, 0]]))[0] < 0


def test_mistakes_name_the_object_and_the_remedy():
    with pytest.raises(HoiError, match="'teapot'"):
        make_object("teapot")
    with pytest.raises(HoiError, match="'mug' offers no grip 'tripod'"):
        make_object("mug", "tripod")
    with pytest.raises(HoiError, match="hole"):
        make_object("mug", "wrap", hole=(0.01, 0.01))
