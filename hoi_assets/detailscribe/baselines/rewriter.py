"""A chat endpoint that rewrites prompts before anything is drawn."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.detailscribe.prompt_extension import word_count
from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Rewriter as RewriterSettings
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

REPLY_KIND = "rewriting"
TEMPLATES = ("rewrite_system.j2", "rewrite_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 100


def rewrite_prompts(
    prompts: Iterable[str],
    rewriter: "EndpointRewriter",
    cache: Ledger | None = None,
    log: Log = print,
) -> dict[str, Reply[str]]:
    """Each prompt rewritten, or the reason why it is not, by prompt.

    Args:
        cache: replies by the hash of prompt and rewriter; a hit is not requested again.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    keys = {prompt: reply_key(prompt, rewriter.identity) for prompt in prompts}
    outcomes = ReplyCache(cache, REPLY_KIND, encode=str, decode=str, log=log).get_or_request(
        {key: prompt for prompt, key in keys.items()},
        lambda missing, on_reply: rewriter.ask(missing, on_reply, log),
    )
    return {prompt: outcomes[key] for prompt, key in keys.items()}


def reply_key(prompt: str, identity: Mapping[str, Any]) -> str:
    """Hash of all that determines a rewritten prompt: 16 hex digits."""
    return digest({"prompt": prompt, "rewriter": dict(identity)})[:ID_LENGTH]


# The schema, class name included, is part of the reply cache's keys.
class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str


class EndpointRewriter(StructuredOutput[str, str]):
    """Asks a chat endpoint for a more detailed prompt, one call per prompt."""

    section = "rewriter"
    label = "rewritten prompts"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: RewriterSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget)
        self.max_words = options.max_words

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a rewritten prompt besides the prompt."""
        return {**super().identity, "max_words": self.max_words}

    def prompt(self, request: str) -> tuple[str, str]:
        """The system and the user message."""
        system = prompt_templates.render(
            "rewrite_system.j2",
            schema=prompt_templates.as_json(self.schema),
            max_words=self.max_words,
        )
        return system, prompt_templates.render("rewrite_user.j2", prompt=request)

    def parse(self, request: str, text: str) -> str:
        """The prompt in a reply, see `read_prompt`."""
        return read_prompt(text, self.max_words)


def read_prompt(text: str, max_words: int) -> str:
    """The prompt in a reply, on one line.

    Raises:
        UnusableReply: a reply that breaks the schema, or a prompt that is empty, unprintable or too
            long.
    """
    try:
        rewritten = _Reply.model_validate(parse_json_object(text)).prompt
    except ValidationError as error:
        raise UnusableReply(prompt_templates.validation_problem(error), text) from error
    prompt = " ".join(rewritten.split())
    if not any(sign.isalnum() for sign in prompt):
        raise UnusableReply("prompt says nothing", text)
    if not prompt.isprintable():
        raise UnusableReply("prompt holds characters that cannot be printed", text)
    if word_count(prompt) > max_words:
        raise UnusableReply(f"prompt has {word_count(prompt)} words, at most {max_words}", text)
    return prompt
