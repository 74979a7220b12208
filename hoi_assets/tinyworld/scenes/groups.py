"""Plans what each picture of the tiny world shows.

Pictures come in groups that share one solved grasp (and, where a defect is planned, its spoilt
twin), because solving costs more than rendering. A group is rendered from its seed alone, so any
shard can be rendered again, by itself.
"""

from dataclasses import dataclass

import numpy as np

from hoi_assets.grammar.vocabulary import OBJECTS
from hoi_assets.taxonomy import Taxonomy
from hoi_assets.tinyworld.scenes.vocabulary import DEFECTS, TWIN_DEFECTS

# Splits never share a seed, hence neither scene nor grasp.
SPLIT_SEEDS = {
    "instance": 11,
    "judge_train": 12,
    "judge_val": 13,
    "judge_test": 14,
    "reference": 15,
    "pretrain": 16,
    "examiner": 17,
    "interactions": 18,
    "twins": 21,
    "twins_examiner": 22,
}
SCENE_SPLITS = ("instance", "reference")
STREAM_SPLITS = ("pretrain", "examiner")
TWIN_STREAMS = ("twins", "twins_examiner")
# Pairs per category, and how many share a grasp.
JUDGE_COUNTS = {"judge_train": (20, 4), "judge_val": (8, 2), "judge_test": (12, 2)}
TWIN_SPLITS = (*TWIN_STREAMS, *JUDGE_COUNTS)
INSTANCE_PICTURES, INSTANCE_GROUP = 16, 4
REFERENCE_PICTURES, REFERENCE_GROUP = 60, 2
STREAM_GROUP = 5
TWIN_GROUP = 4
# Kinds of defect in turn; those that seldom show are planned more often. Seventeen, so that kinds
# meet in a group in every way.
TWIN_PATTERN = (
    *TWIN_DEFECTS, "extra_finger", "penetrating", "extra_finger", "broken_wrist", "extra_finger",
)  # fmt: skip
PRETRAIN_DEFECTS, PRETRAIN_FALSE_CAPTIONS, PRETRAIN_ALONE = 0.15, 0.10, 0.08
EXAMINER_DEFECTS, EXAMINER_ALONE = 0.45, 0.04


@dataclass(frozen=True)
class Group:
    """Pictures that share a grasp: what is planned, before anything is solved.

    Attributes:
        first: index of the group's first picture within its split.
        category: None for objects without a hand.
        objects: what the group may show; one is drawn from the seed.
        defect: kind put into the pictures planned as `defect`.
        plans: per picture clean | defect | false_caption; per pair of twins the kind of defect.
    """

    split: str
    index: int
    first: int
    category: str | None
    objects: tuple[str, ...]
    defect: str
    plans: tuple[str, ...]

    @property
    def grasp_id(self) -> str:
        return f"{self.split}-g{self.index:05d}"

    def rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([SPLIT_SEEDS[self.split], self.index, *stream])


def plan_stored(taxonomy: Taxonomy) -> list[Group]:
    """The stored scenes: instance pictures of each category, and reference pictures."""
    groups = []
    for number, (key, category) in enumerate(taxonomy.categories.items()):
        for start in range(0, INSTANCE_PICTURES, INSTANCE_GROUP):
            place = start // INSTANCE_GROUP
            # Objects take turns, so that each is shown about as often.
            name = category.objects[place % len(category.objects)]
            index = number * (INSTANCE_PICTURES // INSTANCE_GROUP) + place
            first, plans = index * INSTANCE_GROUP, ("clean",) * INSTANCE_GROUP
            groups.append(Group("instance", index, first, key, (name,), DEFECTS[0], plans))
    keys = tuple(taxonomy.categories)
    for index in range(REFERENCE_PICTURES // REFERENCE_GROUP):
        key = keys[index % len(keys)]
        plans = ("clean",) * REFERENCE_GROUP
        shown = taxonomy.categories[key].objects
        first = index * REFERENCE_GROUP
        groups.append(Group("reference", index, first, key, shown, DEFECTS[0], plans))
    return groups


def plan_judges(taxonomy: Taxonomy) -> list[Group]:
    """The stored pairs of twins that the verifier is trained, calibrated and tested on: as many of
    each category, kinds of defect in turn; judge_test shows held-out objects too."""
    groups = []
    for split, (count, size) in JUDGE_COUNTS.items():
        index = first = 0
        for key, category in taxonomy.categories.items():
            names = category.objects
            if split == "judge_test":
                names = names + category.held_out_objects
            for start in range(0, count, size):
                here = min(size, count - start)
                kinds = tuple(TWIN_PATTERN[(first + k) % len(TWIN_PATTERN)] for k in range(here))
                name = names[(start // size) % len(names)]
                groups.append(Group(split, index, first, key, (name,), kinds[0], kinds))
                index, first = index + 1, first + here
    return groups


def plan_stream(taxonomy: Taxonomy, split: str, first: int, count: int) -> list[Group]:
    """Pictures `first` to `first + count` of the pretraining or the examiner's stream.

    pretrain: train objects only, about 15% spoilt, 10% with a false caption, 8% without a hand.
    examiner: all objects, about 45% spoilt, captions true.
    """
    return [
        _stream_group(taxonomy, split, index)
        for index in range(first // STREAM_GROUP, (first + count) // STREAM_GROUP)
    ]


def plan_twins(taxonomy: Taxonomy, split: str, first: int, count: int) -> list[Group]:
    """Pairs `first` to `first + count` of twins: kinds of defect in turn, poses at random.

    twins: train objects only. twins_examiner: all objects.
    """
    keys = tuple(taxonomy.categories)
    groups = []
    for index in range(first // TWIN_GROUP, (first + count) // TWIN_GROUP):
        rng = np.random.default_rng([SPLIT_SEEDS[split], index, 0xA0])
        key = keys[int(rng.integers(len(keys)))]
        shown = taxonomy.categories[key].objects
        if split != "twins":
            shown = shown + taxonomy.categories[key].held_out_objects
        start = index * TWIN_GROUP
        kinds = tuple(
            TWIN_PATTERN[pair % len(TWIN_PATTERN)] for pair in range(start, start + TWIN_GROUP)
        )
        groups.append(Group(split, index, start, key, shown, kinds[0], kinds))
    return groups


def _stream_group(taxonomy: Taxonomy, split: str, index: int) -> Group:
    rng = np.random.default_rng([SPLIT_SEEDS[split], index, 0xA0])
    pretrain = split == "pretrain"
    first = index * STREAM_GROUP
    alone = rng.random() < (PRETRAIN_ALONE if pretrain else EXAMINER_ALONE)
    share = PRETRAIN_DEFECTS if pretrain else EXAMINER_DEFECTS
    false_captions = PRETRAIN_FALSE_CAPTIONS if pretrain else 0.0
    # Defects come bundled: half of the pictures of twice as many groups, one twin solved for all.
    spoilt = not alone and rng.random() < min(1.0, 2 * share)
    plans = []
    for _ in range(STREAM_GROUP):
        chance = rng.random()
        if spoilt and chance < share / min(1.0, 2 * share):
            plans.append("defect")
        else:
            plans.append("false_caption" if rng.random() < false_captions else "clean")
    defect = DEFECTS[int(rng.integers(len(DEFECTS)))]
    if alone:
        return Group(split, index, first, None, OBJECTS, defect, tuple(plans))
    keys = tuple(taxonomy.categories)
    key = keys[int(rng.integers(len(keys)))]
    shown = taxonomy.categories[key].objects
    if not pretrain:
        shown = shown + taxonomy.categories[key].held_out_objects
    return Group(split, index, first, key, shown, defect, tuple(plans))
