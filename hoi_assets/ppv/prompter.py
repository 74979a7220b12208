"""The interface between `detail_prompts` and a prompter."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from hoi_assets.hashing import digest
from hoi_assets.llm.prompt_templates import template_version
from hoi_assets.llm.reply import OnReply, Reply
from hoi_assets.ppv.slots import PromptSlots
from hoi_assets.progress import Log
from hoi_assets.taxonomy import ID_LENGTH, BasePrompt, Category

# The fields of a category that a prompter reads; a change of any other leaves cached replies valid.
CATEGORY_FIELDS = ("name", "definition", "contact_surface", "thumb", "grip_phrase", "hands")


WISH_TEMPLATE = "wish.j2"


@dataclass(frozen=True)
class Wish:
    """What a round asks a prompt to show, see `round_plan.py`.

    Attributes:
        avoid: words that it should do without.
        reasons: why candidates of the category were rejected, for a language model.
    """

    skin_tone: str
    view: str
    side: str
    avoid: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def slots(self) -> dict[str, str]:
        """The slots that are wished for."""
        return {"skin_tone": self.skin_tone, "view": self.view, "side": self.side}


@dataclass(frozen=True)
class PromptRequest:
    """The `index`-th detailed prompt of a category's base prompt; of a round, with its wish."""

    category: Category
    base: BasePrompt
    index: int
    wish: Wish | None = None

    def key(self, seed: int, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the reply, the `prompt_id`: 16 hex digits.

        Args:
            seed: the setting `prompter.seed`.
            identity: the prompter's.
        """
        determined_by: dict[str, Any] = {
            "base_prompt": self.base.prompt_id,
            "object": self.base.object,
            "category": {name: getattr(self.category, name) for name in CATEGORY_FIELDS},
            "index": self.index,
            "seed": seed,
            "prompter": dict(identity),
        }
        if self.wish is not None:
            template = template_version((WISH_TEMPLATE,), {})
            determined_by["wish"] = {**asdict(self.wish), "template": template}
        return digest(determined_by)[:ID_LENGTH]


class Prompter(Protocol):
    """Turns requests into slots."""

    @property
    def model(self) -> str: ...

    @property
    def template_version(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a reply besides the request."""
        ...

    @property
    def caches(self) -> bool:
        """Whether replies are worth caching."""
        ...

    def ask(
        self,
        requests: Mapping[str, PromptRequest],
        on_reply: OnReply[PromptSlots],
        log: Log,
    ) -> Mapping[str, Reply[PromptSlots]]:
        """A reply per request, by key; an endpoint's also goes to `on_reply` as it arrives."""
        ...
