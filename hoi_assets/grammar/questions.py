"""Questions about components of a sentence, and their true answers in a plan's picture."""

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import agree
from hoi_assets.grammar.plans import Plan
from hoi_assets.grammar.sentences import Noun, Triple, noun_of, read_noun
from hoi_assets.grammar.vocabulary import RELATIONS


def question(triple: Triple) -> str:
    """Ask whether a component holds; "yes" is the answer when it does.

    >>> question(Triple("the spoon", "stirs in", "a blue bowl"))
    'does the spoon stir in a blue bowl?'
    >>> question(Triple("the ring", "is beside", "a mug"))
    'is the ring beside a mug?'
    """
    verb, _, rest = triple.relation.partition(" ")
    if verb in ("is", "are"):
        words = [verb, triple.subject, rest, triple.object]
    else:
        noun = read_noun(triple.subject)
        many = noun is not None and noun.count is not None and noun.count > 1
        words = ["do" if many else "does", triple.subject, agree(triple.relation, plural=True),
                 triple.object]  # fmt: skip
    return " ".join(word for word in words if word) + "?"


_SYMMETRIC = ("is beside",)
_KINDS = {"form": "shape", "hold": "holding", "holds": "holding"} | dict.fromkeys(
    ("is beside", "is in", "is in front of", "is on", "surrounds"), "place"
)


def component_kind(triple: Triple) -> str:
    """holding | action | shape | place."""
    return _KINDS.get(triple.relation, "action")


def holds(triple: Triple, plan: Plan) -> bool:
    """Whether a component of any sentence of this grammar is true of the plan's picture.

    What a phrase leaves unsaid is free: "the spoon" is a spoon of any colour.

    Raises:
        HoiError: for a phrase or relation that is not of this grammar.
    """
    subject, object_ = read_noun(triple.subject), read_noun(triple.object)
    if subject is None or object_ is None or triple.relation not in RELATIONS:
        raise HoiError(
            f"'{triple.subject} {triple.relation} {triple.object}' is not of the scenes' grammar",
            "Ask about components that parse() gave.",
        )
    verb = "holds" if triple.relation == "hold" else triple.relation
    for relation in plan.relations:
        if relation.verb != verb:
            continue
        shown = noun_of(plan, relation.subject), noun_of(plan, relation.object)
        if fits(subject, shown[0]) and fits(object_, shown[1]):
            return True
        if verb in _SYMMETRIC and fits(subject, shown[1]) and fits(object_, shown[0]):
            return True
    return False


def fits(asked: Noun, shown: Noun) -> bool:
    """Whether `shown` is what `asked` names; what `asked` leaves unsaid is free."""
    return (
        asked.head == shown.head
        and asked.adjective in (None, shown.adjective)
        and asked.count in (None, shown.count)
    )
