"""Held-out and general prompts to evaluate models on, with the facts a judge can check."""

from dataclasses import dataclass

from hoi_assets.ppv.slots import words_named
from hoi_assets.taxonomy import BasePrompt, Taxonomy


@dataclass(frozen=True)
class EvaluationPrompt:
    """One prompt; colour and side are None where the text does not say.

    Attributes:
        suite: hoi | general.
        seen: whether its pose and object are trained on together; None for general prompts.
    """

    evaluation_prompt_id: str
    suite: str
    text: str
    object: str
    colour: str | None
    side: str | None
    seen: bool | None


def held_out_prompts(taxonomy: Taxonomy, category: str, most: int) -> list[EvaluationPrompt]:
    """The category's evaluation prompts: at most `most`, seen and unseen objects in turn."""
    member = taxonomy.category(category)
    seen = [prompt for prompt in member.evaluation_prompts if member.seen(prompt)]
    unseen = [prompt for prompt in member.evaluation_prompts if not member.seen(prompt)]
    turns = max(len(seen), len(unseen))
    mixed = [
        prompt
        for turn in range(turns)
        for group in (seen, unseen)
        for prompt in group[turn : turn + 1]
    ]
    return [_prompt(prompt, "hoi", member.seen(prompt)) for prompt in mixed[:most]]


def general_prompts(taxonomy: Taxonomy, category: str, most: int) -> list[EvaluationPrompt]:
    """The category's share of the first `most` general prompts, in turn: at least two, unless there
    are fewer. No prompt comes twice.
    """
    keys = sorted(taxonomy.categories)
    chosen = taxonomy.general_prompts[:most]
    first = keys.index(category)
    share = [p for number, p in enumerate(chosen) if number % len(keys) == first]
    for number in range(len(share), min(2, len(chosen))):
        start = first + number * len(keys) // 2
        turns = (chosen[(start + step) % len(chosen)] for step in range(len(chosen)))
        share.append(next(prompt for prompt in turns if prompt not in share))
    return [_prompt(prompt, "general", None) for prompt in share]


def _prompt(prompt: BasePrompt, suite: str, seen: bool | None) -> EvaluationPrompt:
    named = words_named(prompt.text)
    return EvaluationPrompt(
        evaluation_prompt_id=prompt.prompt_id,
        suite=suite,
        text=prompt.text,
        object=prompt.object,
        colour=named.get("colour", (None,))[0],
        side=named.get("side", (None,))[0],
        seen=seen,
    )
