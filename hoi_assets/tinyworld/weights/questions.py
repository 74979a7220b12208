"""Questions about interaction scenes with their true answers: what the critic and the examiner of
components learn from."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hoi_assets.grammar.faults import spoil
from hoi_assets.grammar.plans import Plan, plan_from_json
from hoi_assets.grammar.questions import fits, holds, question
from hoi_assets.grammar.sentences import Noun, Triple, noun_of, read_noun, triples
from hoi_assets.tinyworld.weights.pictures import Pictures

SWAPPED_SHARE = 0.3
PARTS = ("subject", "object", "relation")


@dataclass(frozen=True)
class QuestionBatch:
    """A batch: numbers of pictures, a component asked about each, and whether it holds."""

    chosen: list[int]
    triples: list[Triple]
    answers: list[bool]

    @property
    def texts(self) -> list[str]:
        """The questions."""
        return [question(triple) for triple in self.triples]


@dataclass(frozen=True)
class QuestionSampler:
    """Samples questions about pictures of interactions, yes and no equally often.

    A question with the answer no is a near miss: about the picture's own sentence where the picture
    is spoilt; else about what a spoilt twin would show, or the same hands exchanged.

    Attributes:
        stranger_share: of the answers no, to questions about another picture of the scenario.
    """

    pictures: Pictures
    stranger_share: float = 0.3

    @cached_property
    def plans(self) -> list[Plan]:
        """What the pictures show."""
        return [plan_from_json(row["plan"]) for row in self.pictures.rows]

    @cached_property
    def _of_scenario(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, plan in enumerate(self.plans):
            found.setdefault(plan.scenario, []).append(number)
        return found

    def sample(self, size: int, generator: Any) -> QuestionBatch:
        """A batch of `size` questions that depends on `generator` alone."""
        import torch

        rng = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
        chosen = [rng.randrange(len(self.plans)) for _ in range(size)]
        asked = [
            rng.choice(triples(self.plans[index]))
            if rng.random() < 0.5
            else self._false(index, rng)
            for index in chosen
        ]
        answers = [
            holds(triple, self.plans[index]) for index, triple in zip(chosen, asked, strict=True)
        ]
        return QuestionBatch(chosen, asked, answers)

    def _false(self, index: int, rng: random.Random) -> Triple:
        """A component that does not hold."""
        plan = self.plans[index]
        if rng.random() >= self.stranger_share:
            near = [each for each in self._near(index, rng) if not holds(each, plan)]
            if near:
                return rng.choice(near)
        while True:
            other = self.plans[rng.choice(self._of_scenario[plan.scenario])]
            triple = rng.choice(triples(other))
            # In a world of one picture everything holds.
            if not holds(triple, plan) or len(self.plans) == 1:
                return triple

    def _near(self, index: int, rng: random.Random) -> Sequence[Triple]:
        plan, row = self.plans[index], self.pictures.rows[index]
        if row["fault"] is not None:
            return [Triple(*each) for each in row["triples"]]
        if len(plan.hands) == 2 and rng.random() < SWAPPED_SHARE:
            return triples(replace(plan, hands=plan.hands[::-1]))
        return triples(spoil(plan, rng.randrange(2**31)).plan)


def shown_parts(triple: Triple, plan: Plan) -> tuple[bool, bool, bool]:
    """What of a component is there: its subject, its object, and its relation between things of
    these kinds, whatever their colour, side and number."""
    refs = [f"hand{number}" for number in range(len(plan.hands))]
    refs += ["hands"] if len(plan.hands) == 2 else []
    refs += [f"thing{number}" for number, thing in enumerate(plan.things) if thing.count]
    refs += ["shape"] if plan.verb("thing0") == "form" else []
    shown = [noun_of(plan, ref) for ref in refs]
    subject, object_ = read_noun(triple.subject), read_noun(triple.object)
    return (
        any(_is(subject, noun) for noun in shown),
        any(_is(object_, noun) for noun in shown),
        holds(Triple(_bare(subject), triple.relation, _bare(object_)), plan),
    )


def _is(asked: Noun | None, shown: Noun) -> bool:
    return asked is not None and fits(asked, shown)


def _bare(noun: Noun | None) -> str:
    return Noun(noun.head if noun else "", None, None).phrase(known=True)
