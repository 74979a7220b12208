"""Pairs of a picture and a caption, true or false: what verifier and reward model learn from."""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hoi_assets.grammar.captions import caption
from hoi_assets.statistics import auc
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for
from hoi_assets.tinyworld.weights.pictures import Pictures

OTHER = "other_picture"


@dataclass(frozen=True)
class Pairs:
    """A batch: numbers of pictures, their texts, and each text's false claim (None: none).

    An empty text claims nothing: it is neither true nor false.

    Attributes:
        claims: what each text claims, as rows that `truth.targets` reads; the truth where the text
            is empty.
    """

    chosen: list[int]
    texts: list[str]
    claims: list[dict[str, Any]]
    lies: list[str | None]
    spoilt: list[bool]

    @property
    def has_text(self) -> list[bool]:
        """Whether the text is not empty."""
        return [bool(text) for text in self.texts]

    @property
    def faults(self) -> list[int]:
        """0 for a clean picture under a true caption; a caption of another picture counts twice."""
        return [
            int(spoilt) + (0 if lie is None else 2 if lie == OTHER else 1)
            for spoilt, lie in zip(self.spoilt, self.lies, strict=True)
        ]


@dataclass(frozen=True)
class PairSampler:
    """Samples batches of pairs.

    Attributes:
        spoilt_share: of pictures with a planted defect.
        lie_share: of captions with one false claim; `other_share`: captions of another picture;
        blank_share: empty texts.
    """

    pictures: Pictures
    spoilt_share: float = 0.4
    lie_share: float = 0.4
    other_share: float = 0.1
    blank_share: float = 0.0

    @cached_property
    def _spoilt(self) -> list[int]:
        return [i for i, row in enumerate(self.pictures.rows) if not row["fidelity"]]

    @cached_property
    def _clean(self) -> list[int]:
        return [i for i, row in enumerate(self.pictures.rows) if row["fidelity"]]

    def sample(self, size: int, generator: Any) -> Pairs:
        """A batch of `size` pairs that depends on `generator` alone."""
        import torch

        rng = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
        return self.with_texts(self.choose(size, rng), rng)

    def choose(self, size: int, rng: random.Random) -> list[int]:
        """Numbers of `size` pictures."""
        spoilt = [bool(self._spoilt) and rng.random() < self.spoilt_share for _ in range(size)]
        return [rng.choice(self._spoilt if faulty else self._clean) for faulty in spoilt]

    def with_texts(self, chosen: list[int], rng: random.Random) -> Pairs:
        """Pairs of the `chosen` pictures and captions drawn from `rng`."""
        texts, claims, lies = [], [], []
        for index in chosen:
            slots, lie = self._draw_slots(index, rng)
            seed, silent = rng.randrange(2**31), rng.random() < self.blank_share
            texts.append("" if silent else caption(slots, seed))
            claims.append(self._claim(self.pictures.slots(index) if silent else slots))
            lies.append(None if silent else lie)
        faulty = [not self.pictures.rows[i]["fidelity"] for i in chosen]
        return Pairs(chosen, texts, claims, lies, faulty)

    def _draw_slots(self, index: int, rng: random.Random) -> tuple[dict[str, Any], str | None]:
        """Slots to put into words, and the kind of false claim among them."""
        seed, chance = rng.randrange(2**31), rng.random()
        if chance < self.lie_share:
            kind = rng.choice(false_claims_for(self.pictures.slots(index)))
            return self.pictures.false_slots(index, seed, kind), kind
        if chance < self.lie_share + self.other_share:
            other = rng.randrange(len(self.pictures))
            if self.pictures.slots(other) != self.pictures.slots(index):
                return self.pictures.slots(other), OTHER
        return self.pictures.slots(index), None

    def _claim(self, slots: dict[str, Any]) -> dict[str, Any]:
        category = {grip: key for key, grip in self.pictures.grips.items()}.get(slots["grip"])
        claim = {name: slots[name] for name in ("object", "colour", "side")}
        return {"category": category, **claim}


@dataclass(frozen=True)
class TwinSampler(PairSampler):
    """Samples twins together, so that a batch shows each defect and the same hand without it.

    Attributes:
        pictures: of twins; `spoilt_share` has no meaning.
    """

    def choose(self, size: int, rng: random.Random) -> list[int]:
        """Numbers of `size` pictures, `size` even."""
        pairs = [rng.randrange(len(self.pictures) // 2) for _ in range(size // 2)]
        return [2 * pair + place for pair in pairs for place in (0, 1)]


def roc_area(truth: Any, scores: Any) -> float:
    """Area under the ROC curve; 0.5 when a class is missing."""
    value = auc(truth, scores).value
    return 0.5 if value is None else value
