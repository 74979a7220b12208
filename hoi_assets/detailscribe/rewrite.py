"""A prompt rewritten by a language model before anything is drawn: a baseline of DetailScribe."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Rewriter
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

REPLY_KIND = "rewriting"
TEMPLATES = ("rewrite_system.j2", "rewrite_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 100


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str


class EndpointRewriter(StructuredOutput[str, str]):
    """Asks for a prompt said more fully, one call per prompt."""

    section = "rewriter"
    label = "rewritten prompts"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: Rewriter, budget: Budget | None = None) -> None:
        super().__init__(options, budget)
        self.max_words = options.max_words

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a rewritten prompt beside the prompt."""
        return {**super().identity, "max_words": self.max_words}

    def prompt(self, request: str) -> tuple[str, str]:
        """What the system and the user say."""
        system = wording.render(
            "rewrite_system.j2", schema=wording.as_json(self.schema), max_words=self.max_words
        )
        return system, wording.render("rewrite_user.j2", prompt=request)

    def parse(self, request: str, text: str) -> str:
        """The prompt of a reply, on one line."""
        try:
            said = _Reply.model_validate(parse_json_object(text)).prompt
        except ValidationError as error:
            raise UnusableReply(wording.validation_problem(error), text) from error
        prompt = " ".join(said.split())
        if not any(sign.isalnum() for sign in prompt):
            raise UnusableReply("prompt says nothing", text)
        if not prompt.isprintable():
            raise UnusableReply("prompt holds characters that cannot be printed", text)
        if len(prompt.split()) > self.max_words:
            raise UnusableReply(
                f"prompt has {len(prompt.split())} words, at most {self.max_words}", text
            )
        return prompt


def rewrite(
    prompts: Iterable[str],
    rewriter: EndpointRewriter,
    cache: Ledger | None = None,
    log: Log = print,
) -> dict[str, Reply[str]]:
    """Each prompt rewritten, or the reason why it is not, by prompt.

    Args:
        cache: replies kept by the hash of prompt and rewriter; one found is not asked for again.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
    """
    identity = dict(rewriter.identity)
    keys = {
        prompt: digest({"prompt": prompt, "rewriter": identity})[:ID_LENGTH] for prompt in prompts
    }
    replies = ReplyCache(cache, REPLY_KIND, encode=str, decode=str, log=log)
    outcomes = replies.get_or_request(
        {key: prompt for prompt, key in keys.items()},
        lambda missing, on_reply: rewriter.ask(missing, on_reply, log),
    )
    return {prompt: outcomes[key] for prompt, key in keys.items()}
