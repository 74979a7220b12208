"""Properties, for tests (few examples, always the same) and for proofs (many, at random).

A property is a function that hypothesis calls with examples, or a state machine.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from hoi_assets_tests.properties import cache_keys, grammars, replies, schedules
from hoi_assets_tests.properties.store_histories import StoreHistories

Property = Callable[..., Any] | type[RuleBasedStateMachine]

# Examples in one trial of each: a second or so.
PROPERTIES: dict[str, tuple[Property, int]] = {
    "store histories": (StoreHistories, 4),
    "keys of images": (cache_keys.image_keys, 200),
    "keys of variants": (cache_keys.variant_keys, 200),
    "keys of requests": (cache_keys.request_keys, 200),
    "inputs of stages": (cache_keys.inputs_of_stages, 50),
    "sentences of the grammar": (grammars.sentences_are_read_back, 200),
    "captions of the grammar": (grammars.captions_are_read_back, 200),
    "text of another grammar": (grammars.any_text_is_parsed_or_not, 200),
    "steps of a schedule": (schedules.steps_add_up, 200),
    "prompts of the steps": (schedules.prompts_of_the_steps, 6),
    "text of a reply": (replies.any_text_is_one_object_or_unusable, 200),
    "ratings in replies": (replies.a_rating_is_exactly_what_was_asked_for, 200),
    "bodies of completions": (replies.any_body_has_a_text_or_a_named_failure, 200),
    "bytes from a server": (replies.any_bytes_from_a_server_end_as_a_reason, 15),
}


def check(name: str, examples: int, number: int | None = None) -> None:
    """Try a property on so many examples.

    Args:
        number: seed of the examples; None: those that are always tried.

    Raises:
        AssertionError, or what the code under test raised: it does not hold.
    """
    tried, _ = PROPERTIES[name]
    options = settings(
        max_examples=examples,
        derandomize=number is None,
        database=None,
        deadline=None,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
    )
    if isinstance(tried, type):
        machine = type(tried.__name__, (tried,), {})
        run_state_machine_as_test(
            machine if number is None else seed(number)(machine), settings=options
        )
    else:
        test = options(given(*tried.strategies)(tried))  # type: ignore[attr-defined]
        (test if number is None else seed(number)(test))()
