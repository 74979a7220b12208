"""Calls to chat endpoints that a run will make, their tokens, and what they cost.

Requests are rendered with the pipelines' own templates. What an earlier step decides is assumed:
a picture has the components that the built-in grammar finds in its prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hoi_assets.detailscribe.benchmark import BenchmarkRow
from hoi_assets.detailscribe.components import Component
from hoi_assets.settings import Settings
from hoi_assets.taxonomy import Category

if TYPE_CHECKING:
    from hoi_assets.llm.structured_output import StructuredOutput

CHAT_SECTIONS = ("prompter", "anatomy", "decomposer", "rewriter", "critic", "judge")


@dataclass(frozen=True)
class Calls:
    """Calls to one endpoint.

    Attributes:
        section: of the settings, e.g. critic.
        count: at most, without repeats of unusable replies.
        input_tokens: an upper estimate; null for an image endpoint.
        output_tokens: of typical replies; null as above.
        usd: null where a price is not known.
        cap_usd: the section's budget_usd; calls stop there.
    """

    section: str
    count: int
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    cap_usd: float | None


class CallPlanner:
    """Counts calls under a profile; nothing is sent.

    Raises:
        HoiError: from any method, for endpoint settings that cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[Component, ...]] = {}

    def detailed_prompts(self, category: Category) -> list[Calls]:
        """Calls of the prompter for one category."""
        from hoi_assets.ppv.endpoint_prompter import EndpointPrompter
        from hoi_assets.ppv.prompter import PromptRequest

        options = self._settings.prompter
        if options.endpoint is None:
            return []
        requests = [
            PromptRequest(category, base, index)
            for base in category.base_prompts
            for index in range(options.per_base_prompt)
        ]
        return [_calls(EndpointPrompter(options), requests)]

    def decompositions(self, prompts: Sequence[str]) -> list[Calls]:
        """Calls of the decomposer."""
        from hoi_assets.detailscribe.decomposers import EndpointDecomposer

        options = self._settings.decomposer
        return [] if options.endpoint is None else [_calls(EndpointDecomposer(options), prompts)]

    def rewritings(self, prompts: Sequence[str]) -> list[Calls]:
        """Calls of the rewriter."""
        from hoi_assets.detailscribe.baselines.rewriter import EndpointRewriter

        options = self._settings.rewriter
        return [] if options.endpoint is None else [_calls(EndpointRewriter(options), prompts)]

    def critiques(self, prompts: Sequence[str], pictures_each: int) -> list[Calls]:
        """Calls of the critic for so many pictures of each prompt."""
        from hoi_assets.detailscribe.critique import CritiqueRequest
        from hoi_assets.detailscribe.endpoint_critic import EndpointCritic

        options = self._settings.critic
        if options.endpoint is None:
            return []
        known = self._components_of(prompts)
        requests = [CritiqueRequest("", text, known[text], _unseen()) for text in prompts]
        return [_calls(EndpointCritic(options), requests, pictures_each)]

    def published_critiques(self, rows: Sequence[BenchmarkRow]) -> list[Calls]:
        """Calls of the critic for each initial picture, by the published protocol."""
        from hoi_assets.detailscribe.critique import CritiqueRequest
        from hoi_assets.detailscribe.published_critic import PublishedCritic

        known = self._components_of([row.prompt for row in rows])
        requests = [
            CritiqueRequest("", row.prompt, known[row.prompt], _unseen(), row.topic) for row in rows
        ]
        return [_calls(PublishedCritic(self._settings.critic), requests)]

    def suggestions(self, prompts: Sequence[str]) -> list[Calls]:
        """Calls of the critic for prompts that refine an initial picture, as published."""
        from hoi_assets.detailscribe.baselines.refiner import EndpointRefiner, RefineRequest

        requests = [RefineRequest(prompt, _unseen()) for prompt in prompts]
        return [_calls(EndpointRefiner(self._settings.critic), requests)]

    def ratings(self, rows: Sequence[BenchmarkRow], pictures_each: int) -> list[Calls]:
        """Calls of the judge for so many pictures of each prompt."""
        from hoi_assets.evaluation.vlm_judge import RatingRequest, build_judge

        options = self._settings.judge
        if options.endpoint is None:
            return []
        requests = [
            RatingRequest("", row.prompt, _unseen(), row.topic, row.scenario) for row in rows
        ]
        return [_calls(build_judge(options), requests, pictures_each)]

    def yes_probabilities(self, prompts: Sequence[str], pictures_each: int) -> list[Calls]:
        """Calls for VQAScore and Soft-TIFA: about the prompt, and about each component."""
        from hoi_assets.llm.yes_no import YesNoClient

        options = self._settings.vqa_score
        if options is None or options.endpoint is None:
            return []
        known, client = self._components_of(prompts), YesNoClient(options)
        count = pictures_each * sum(1 + len(known[prompt]) for prompt in prompts)
        given, replied = client.expected_tokens(count)
        usd = client.budget.cost(given, replied)
        return [Calls("vqa_score", count, given, replied, usd, options.budget_usd)]

    def anatomy(self, pictures: int) -> list[Calls]:
        """Calls of the endpoint that is asked about the hands."""
        from hoi_assets.llm.hand_anatomy import EndpointAnatomy

        options = self._settings.anatomy
        if options is None or options.endpoint is None:
            return []
        return [_calls(EndpointAnatomy(options), [_unseen()], pictures)]

    def endpoint_images(self, count: int) -> list[Calls]:
        """Calls of the image endpoint."""
        options = self._settings.image_endpoint
        if options.endpoint is None:
            return []
        usd = None if options.usd_per_image is None else count * options.usd_per_image
        return [Calls("image_endpoint", count, None, None, usd, options.budget_usd)]

    def _components_of(self, prompts: Sequence[str]) -> dict[str, tuple[Component, ...]]:
        from hoi_assets.detailscribe.decomposers import RuleDecomposer

        new = {prompt: prompt for prompt in prompts if prompt not in self._known}
        replies = RuleDecomposer().ask(new, lambda key, reply: None, lambda line: None)
        self._known |= {prompt: reply.value or () for prompt, reply in replies.items()}
        return self._known


def _calls(client: "StructuredOutput[Any, Any]", requests: Iterable[Any], times: int = 1) -> Calls:
    requests = list(requests)
    given, replied = (times * tokens for tokens in client.expected_tokens(requests))
    return Calls(
        section=client.section,
        count=times * len(requests),
        input_tokens=given,
        output_tokens=replied,
        usd=client.chat.budget.cost(given, replied),
        cap_usd=client.chat.options.budget_usd,
    )


def _unseen() -> Any:
    """A picture that does not exist yet; counting calls never opens it."""
    from hoi_assets.llm.shown_image import ShownImage

    def never() -> Any:
        raise AssertionError("opened while calls are counted")

    return ShownImage("", never)


def total_usd(calls: Iterable[Calls]) -> float | None:
    """US dollars of all calls; None where one is unknown."""
    costs = [one.usd for one in calls]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
