"""Arranged interactions held against their geometry; needs the extra `scenes`."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mitsuba")
pytest.importorskip("anny")

from hoi_assets.grammar.faults import spoil
from hoi_assets.grammar.plans import (
    FORMS,
    HELD_USES,
    PLACES,
    SCENARIOS,
    USES,
    make_plan,
    plan_from_json,
)
from hoi_assets.grammar.questions import holds
from hoi_assets.grammar.sentences import Triple, parse, triples
from hoi_assets.store.scene_pool import INTERACTION_SCENES, open_image, read_pool
from hoi_assets.tinyworld.scenes.interactions.arrange import arrange
from hoi_assets.tinyworld.scenes.interactions.bodies import hand_only
from hoi_assets.tinyworld.scenes.interactions.picture import render_interaction
from hoi_assets.tinyworld.scenes.render import Quality
from hoi_assets.tinyworld.scenes.shards import TAXONOMY, RenderSettings, render_stream
from hoi_assets.tinyworld.scenes.solving import load_world

TOUCH_MM, STIR_MM = 1.0, 25.0  # a spoon stirs without scraping


@pytest.fixture(scope="module")
def world():
    return load_world(TAXONOMY)


def plan_of(pattern, number=0, **wanted):
    """The first plan of a pattern whose things are of the wanted kinds (thing0=..., thing1=...)."""
    for scenario in SCENARIOS:
        for seed in range(3000):
            plan = make_plan(scenario, seed)
            kinds = {f"thing{place}": thing.kind for place, thing in enumerate(plan.things)}
            if (
                plan.pattern == pattern
                and wanted.items() <= (kinds | {"shape": plan.shape}).items()
            ):
                if number == 0:
                    return plan
                number -= 1
    raise AssertionError(f"no plan {pattern} {wanted}")


def without(plan, subject):
    kept = tuple(relation for relation in plan.relations if relation.subject != subject)
    assert len(kept) < len(plan.relations)
    return replace(plan, relations=kept)


def lowest(body):
    return float(body.points[:, 2].min())


# --- tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "target"),
    [(tool, target) for tool, (_, targets) in USES.items() for target in targets],
)
def test_tool_reaches_its_target_and_stays_clear_of_it_otherwise(world, tool, target):
    plan = plan_of("use", thing0=tool, thing1=target)
    scene = arrange(world, plan)
    acting, met = scene.bodies
    if tool == "bottle":
        mouth = acting.end
        top = met.points[:, 2].max()
        assert 0 < mouth[2] - top < 0.09
        assert np.hypot(*(mouth - met.at((0, 0, 0)))[:2]) < 0.03
        assert [mark.role for mark in scene.marks] == ["water"]
    else:
        assert -1.0 < scene.gap_mm < (STIR_MM if tool == "spoon" else TOUCH_MM)
    # Neither tool nor fingers run through the target.
    points = np.concatenate([acting.points, hand_only(acting)])
    assert met.distance(points).min() > -0.002
    aside = arrange(world, without(plan, "thing0"))
    assert aside.gap_mm > 50 and not aside.marks
    assert aside.bodies[1].distance(aside.bodies[0].points).min() > 0.05


@pytest.mark.parametrize(("tool", "target"), [("spoon", "bowl"), ("spoon", "mug")])
def test_stirring_spoon_is_inside_its_vessel(world, tool, target):
    for number in range(2):
        scene = arrange(world, plan_of("use", number, thing0=tool, thing1=target))
        spoon, vessel = scene.bodies
        assert spoon.end[2] < vessel.points[:, 2].max() - 0.012
        assert np.hypot(*(spoon.end - vessel.at((0, 0, 0)))[:2]) < 0.05


def test_side_decides_which_hand_acts(world):
    plan = plan_of("use", thing0="pen")
    other = replace(
        plan,
        hands=(replace(plan.hands[0], side="left" if plan.hands[0].side == "right" else "right"),),
    )
    one, two = arrange(world, plan), arrange(world, other)
    flip = np.array([-1.0, 1.0, 1.0])
    assert np.allclose(one.bodies[0].joints * flip, two.bodies[0].joints)
    assert np.allclose(one.bodies[1].points * flip, two.bodies[1].points)


@pytest.mark.parametrize("tool", sorted(HELD_USES))
def test_tool_reaches_what_the_other_hand_holds(world, tool):
    plan = plan_of("hold_use", thing0=tool)
    scene = arrange(world, plan)
    assert len(scene.bodies[1].hands) == 1 and scene.support_z is None
    if tool != "bottle":
        assert -1.0 < scene.gap_mm < (STIR_MM if tool == "spoon" else TOUCH_MM)
    down = arrange(world, without(plan, "hand0"))
    assert not down.bodies[1].hands and down.support_z == 0.0
    assert abs(lowest(down.bodies[1])) < 1e-6


# --- arrangements --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", sorted(FORMS))
def test_shapes_have_their_count_stand_on_something_and_do_not_overlap(world, shape):
    plan = plan_of("form", shape=shape)
    scene = arrange(world, plan)
    group = [body for body in scene.bodies if body.thing == 0]
    assert len(group) == plan.things[0].count
    for body in scene.bodies:
        others = [other for other in scene.bodies if other is not body]
        gaps = [float(other.distance(body.points).min()) for other in others]
        assert min(gaps) > -0.001
        assert abs(lowest(body)) < 1e-6 or min(gaps) < 0.001


def test_ring_goes_round_its_middle(world):
    for number in range(8):
        plan = plan_of("form", number, shape="ring")
        scene = arrange(world, plan)
        *ring, middle = [body.at((0, 0, 0))[:2] for body in scene.bodies]
        away = np.array(ring) - middle
        turn = np.sort(np.arctan2(away[:, 1], away[:, 0]))
        widest = np.diff(np.append(turn, turn[0] + 2 * np.pi)).max()
        assert (widest < np.pi / 2) == (plan.verb("shape") == "surrounds")


def test_what_a_shape_is_in_front_of_stands_farther_from_the_camera(world):
    plan = next(
        plan
        for plan in (plan_of("form", number, shape="row") for number in range(20))
        if plan.verb("shape") == "is in front of"
    )
    *row, behind = arrange(world, plan).bodies
    assert behind.points[:, 1].min() > max(body.points[:, 1].max() for body in row)


@pytest.mark.parametrize("under", sorted(PLACES))
def test_what_is_on_or_in_a_thing_touches_it(world, under):
    plan = plan_of("place", thing1=under)
    base, top, partner = arrange(world, plan).bodies
    assert abs(base.distance(top.points).min()) < 0.001
    assert lowest(top) > lowest(base) + 0.001
    assert base.distance(partner.points).min() > 0.005
    beside = arrange(
        world, replace(plan, relations=(replace(plan.relations[0], verb="is beside"),
                                        plan.relations[1]))
    )  # fmt: skip
    assert abs(lowest(beside.bodies[1])) < 1e-6
    assert base.distance(beside.bodies[1].points).min() > 0.005


# --- two hands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("under", ["bowl", "box"])
def test_two_hands_hold_a_thing_and_another_lies_in_or_on_it(world, under):
    base, top = arrange(world, plan_of("together", thing0=under)).bodies
    assert len(base.hands) == 2
    assert abs(base.distance(top.points).min()) < 0.001


def test_each_hand_holds_its_thing_on_its_own_side(world):
    plan = plan_of("each")
    for hand, body in zip(plan.hands, arrange(world, plan).bodies, strict=True):
        across = body.points[:, 0].mean()
        assert across > 0 if hand.side == "right" else across < 0
        assert abs(body.distance(body.skin).min()) < 0.006


@pytest.mark.parametrize("kind", ["phone", "book"])
def test_finger_presses_or_points_at_what_lies_on_the_palm(world, kind):
    plan = plan_of("offer", thing0=kind)
    gap = arrange(world, plan).gap_mm
    assert -1 < gap < 2 if kind == "phone" else 20 < gap < 60
    assert arrange(world, without(plan, "hand1")).gap_mm > 50
    down = arrange(world, without(plan, "hand0"))
    assert not down.bodies[0].hands and abs(lowest(down.bodies[0])) < 1e-6


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_hand_and_thing_shows_in_the_picture(world, scenario):
    for seed in (1, 2):
        plan = make_plan(scenario, seed)
        for shown in (plan, spoil(plan, seed).plan):
            _, row = render_interaction(world, shown, Quality(64, 1))
            assert len(row["thing_pixels"]) == sum(thing.count for thing in shown.things)
            assert min(row["thing_pixels"] + row["hand_pixels"]) > 0
            hands = {r.subject for r in shown.relations if r.subject.startswith("hand")}
            assert len(row["hand_pixels"]) == (2 if "hands" in hands else len(hands))
            assert plan_from_json(row["plan"]) == shown


def test_equal_plans_give_equal_bits_and_colours_are_each_things_own(world):
    plan = plan_of("place", thing1="book", thing0="ball")
    one, row = render_interaction(world, plan, Quality(48, 2))
    two, again = render_interaction(world, plan, Quality(48, 2))
    assert one.tobytes() == two.tobytes() and row == again
    colour = "green" if plan.things[0].colour != "green" else "purple"
    ball = replace(plan.things[0], colour=colour)
    painted = replace(plan, things=(ball, *plan.things[1:]))
    other, _ = render_interaction(world, painted, Quality(48, 2))
    changed = (np.asarray(one) != np.asarray(other)).any(axis=2)
    assert 0 < changed.mean() < 0.6


def test_stream_shards_are_readable_true_and_drawn_again_with_equal_bits(tmp_path):
    drawing = RenderSettings(Quality(32, 1))
    render_stream(tmp_path, "interactions", 6, 1, drawing, shard_scenes=3)
    rows = read_pool(tmp_path, "interactions")
    assert dict(rows.schema) == INTERACTION_SCENES.schema and len(rows) == 6
    for row in rows.iter_rows(named=True):
        drawn = plan_from_json(row["plan"])
        told = [Triple(*each) for each in row["triples"]]
        assert parse(row["prompt"]) == tuple(told)
        assert parse(row["caption"]) == triples(drawn)
        assert row["truth"] == [holds(each, drawn) for each in told]
        assert row["alignment"] == all(row["truth"]) == (row["fault"] is None)
        assert [text[-1] for text in row["questions"]] == ["?"] * len(row["answers"])
        assert open_image(tmp_path, row).size == (32, 32)
        assert json.loads(row["plan"])["scenario"] == row["scenario"]
    again = tmp_path / "again"
    render_stream(again, "interactions", 3, 1, drawing, shard_scenes=3)
    assert read_pool(again)["digest"].to_list() == rows["digest"].to_list()[:3]
