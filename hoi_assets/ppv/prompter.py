"""What goes between `detail_prompts` and a prompter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hoi_assets.hashing import digest
from hoi_assets.ppv.slots import PromptSlots
from hoi_assets.progress import Log
from hoi_assets.taxonomy import ID_LENGTH, BasePrompt, Category, Taxonomy

# What of a category a prompter reads; a change of anything else keeps the replies.
CATEGORY_FACTS = ("name", "definition", "contact_surface", "thumb", "grip_phrase", "hands")


@dataclass(frozen=True)
class Request:
    """The `index`-th detailed prompt of a base prompt.

    Attributes:
        prompt_id: 16 hex digits, the hash of all that determines the reply.
    """

    base: BasePrompt
    index: int
    prompt_id: str

    @staticmethod
    def of(
        category: Category, base: BasePrompt, index: int, seed: int, identity: Mapping[str, Any]
    ) -> "Request":
        determined_by = {
            "base_prompt": base.prompt_id,
            "object": base.object,
            "category": {name: getattr(category, name) for name in CATEGORY_FACTS},
            "index": index,
            "seed": seed,
            "prompter": dict(identity),
        }
        return Request(base, index, digest(determined_by)[:ID_LENGTH])


@dataclass(frozen=True)
class Reply:
    """What became of a request: slots, or the reason why there are none.

    Attributes:
        refused: a reply was made and is not acceptable (rejected), not merely missing (failed).
        cost_usd: None where the price or the number of tokens is not known.
    """

    slots: PromptSlots | None = None
    reason: str | None = None
    refused: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


Keep = Callable[[Request, Reply], None]


class Prompter(Protocol):
    """Turns requests into slots. `identity` is what determines a reply beside the request."""

    @property
    def taxonomy(self) -> Taxonomy: ...

    @property
    def model(self) -> str: ...

    @property
    def template_version(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def caches(self) -> bool: ...

    def ask(
        self, category: Category, requests: Sequence[Request], keep: Keep, log: Log
    ) -> list[Reply]: ...
