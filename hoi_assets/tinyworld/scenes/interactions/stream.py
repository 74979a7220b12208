"""Streams of interaction pictures: what is drawn, which sentence goes with it, what is asked."""

import random
from dataclasses import dataclass, replace
from typing import Any

from hoi_assets.grammar.benchmark import is_reserved
from hoi_assets.grammar.faults import spoil
from hoi_assets.grammar.plans import SCENARIOS, Plan, make_plan
from hoi_assets.grammar.questions import component_kind, holds, question
from hoi_assets.grammar.sentences import Triple, sentence, triples

# No two splits share a picture; none shows a sentence of the benchmark.
INTERACTION_SPLITS = (
    "interactions",
    "interactions_judge",
    "interactions_examiner",
    "interactions_test",
)


@dataclass(frozen=True)
class StreamItem:
    """One picture of a stream: the plan that its sentence describes, what is drawn, and questions.

    Attributes:
        fault: what makes the sentence false of the drawn plan; None where it is true.
        asked: components in which the sentence and its spoilt twin differ, and others, mixed.
    """

    split: str
    index: int
    described: Plan
    drawn: Plan
    fault: str | None
    asked: tuple[Triple, ...]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What is drawn: one picture."""
        return (self.drawn,)

    def row(self) -> dict[str, Any]:
        """Sentence, components and questions, each with its truth in the drawn picture."""
        components = triples(self.described)
        return {
            "scene_id": f"{self.split}-{self.index:06d}",
            "split": self.split,
            "prompt": sentence(self.described),
            "alignment": self.fault is None,
            "fault": self.fault,
            "triples": [[each.subject, each.relation, each.object] for each in components],
            "truth": [holds(each, self.drawn) for each in components],
            "questions": [question(each) for each in self.asked],
            "answers": [holds(each, self.drawn) for each in self.asked],
            "kinds": [component_kind(each) for each in self.asked],
            "light": self.drawn.light,
            "background": self.drawn.background,
            "seed": self.drawn.seed,
        }


def plan_interactions(split: str, first: int, count: int) -> list[StreamItem]:
    """Pictures `first` to `first + count` of a stream, scenarios in turn.

    Half of the pictures are spoilt. About half of the answers are yes, whatever is asked: a
    question about a spoilt twin's difference is asked of both twins.
    """
    return [_item(split, index) for index in range(first, first + count)]


def _item(split: str, index: int) -> StreamItem:
    rng = random.Random(f"{split}:{index}")
    scenario = SCENARIOS[index % len(SCENARIOS)]
    while True:
        plan = make_plan(scenario, rng.randrange(2**31))
        spoilt = spoil(plan, rng.randrange(2**31))
        if not is_reserved(plan) and not is_reserved(spoilt.plan):
            break
    drawn, fault = rng.choice(((plan, None), (spoilt.plan, spoilt.fault)))
    stranger = _swapped(plan) if len(plan.hands) == 2 and rng.random() < 0.5 else None
    stranger = stranger or make_plan(scenario, rng.randrange(2**31))
    asked = [rng.choice(triples(stranger))]
    for triple in (*triples(plan), *triples(spoilt.plan)):
        # What both twins show would be asked with the answer yes only.
        differs = holds(triple, plan) != holds(triple, spoilt.plan)
        if triple not in asked and (differs or rng.random() < 0.6):
            asked.append(triple)
    rng.shuffle(asked)
    return StreamItem(split, index, plan, drawn, fault, tuple(asked))


def _swapped(plan: Plan) -> Plan:
    """The plan with its two hands in each other's place."""
    return replace(plan, hands=plan.hands[::-1])
