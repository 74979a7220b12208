"""How likely a vision endpoint answers yes to a question about a picture, by its logprobs.

Only endpoints that give logprobs can be asked. Of others the probability is not known, and nothing
is put in its place: the first answer without logprobs ends the batch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hoi_assets.hashing import digest
from hoi_assets.llm.batch import request_all
from hoi_assets.llm.budget import Budget, Usage
from hoi_assets.llm.chat import ChatClient, count_tokens, image_part, text_part
from hoi_assets.llm.reply import OnReply, Reply, UnusableReply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.retry import RequestFailed
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.progress import Log
from hoi_assets.settings import YesNoJudge
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

REPLY_KIND = "p_yes"
ASKING_VERSION = "1"  # part of every answer's key: raise it when it is asked otherwise
TOP_LOGPROBS = 20  # the most that OpenAI's API gives
NO_LOGPROBS = "no_logprobs"
QUESTION_TOKENS = 40  # of a question, at most


@dataclass(frozen=True)
class YesNoQuestion:
    """A yes/no question about a picture."""

    image: ShownImage
    question: str

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the answer: 16 hex digits."""
        of = {"pixels": self.image.pixels, "question": self.question, "judge": dict(identity)}
        return digest(of)[:ID_LENGTH]


def probabilities_of_yes(
    questions: Sequence[YesNoQuestion],
    client: "YesNoClient",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Reply[float]]:
    """P(yes), 0 to 1, of each question in their order; None with the reason where it is not known.

    Args:
        cache: answers by the hash of picture, question and judge.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    keys = [one.key(client.identity) for one in questions]
    replies = ReplyCache(cache, REPLY_KIND, encode=float, decode=float, log=log)
    found = replies.get_or_request(
        dict(zip(keys, questions, strict=True)),
        lambda missing, on_reply: client.ask_all(missing, on_reply, log),
    )
    return [found[key] for key in keys]


class YesNoClient(ChatClient):
    """Asks for one token and reads the probabilities of yes and no.

    Raises:
        HoiError: settings that cannot work, see `EndpointClient`.
    """

    def __init__(self, options: YesNoJudge, budget: Budget | None = None) -> None:
        super().__init__(options, budget, "vqa_score", options.image_tokens)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines an answer besides picture and question."""
        return {
            "model": self.model,
            "endpoint": self.endpoint,
            "seed": self.options.seed,
            "version": ASKING_VERSION,
        }

    def expected_tokens(self, questions: int) -> tuple[int, int]:
        """Tokens of so many questions (an upper estimate) and of their answers."""
        return questions * (self.image_tokens + QUESTION_TOKENS), questions

    def ask_all(
        self, questions: Mapping[str, YesNoQuestion], on_reply: OnReply[float], log: Log
    ) -> Mapping[str, Reply[float]]:
        """A reply per question, by key; `on_reply` is called with each as it arrives."""
        if not questions:
            return {}
        given, replied = self.expected_tokens(len(questions))
        log(f"P(yes): {self.estimate_calls(len(questions), given, replied)}")
        results = request_all(
            self,
            list(questions.items()),
            lambda item, first: self._ask(*item, first),
            lambda item, reply: on_reply(item[0], reply),
            "P(yes)",
            log,
        )
        return dict(zip(questions, results, strict=True))

    def _ask(self, key: str, question: YesNoQuestion, first: bool) -> Reply[float]:
        content = [image_part(question.image.open()), text_part(question.question)]
        messages: Any = [{"role": "user", "content": content}]
        options = {
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
            "max_tokens": 1,
            # The probabilities are those of the model, not of a sharper or flatter one.
            "temperature": 1.0,
            "seed": int(key[:7], 16),
        }
        bound = self.budget.cost(count_tokens(messages, self.image_tokens) + 1, 1) or 0.0

        def create(**given: Any) -> Any:
            return self.exchange.openai.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, **given
            )

        def attempt(_: UnusableReply | None, usage: Usage) -> float:
            try:
                return p_yes_of(self.call(create, options, bound, usage))
            except RequestFailed as error:
                if str(error).startswith(NO_LOGPROBS):
                    self.stop_reason = str(error)
                raise

        return self.request(attempt, first)


def p_yes_of(answer: Mapping[str, Any]) -> float:
    """The probability that the first token is a yes, 0 to 1.

    >>> tokens = [{"token": "Yes", "logprob": -0.5}, {"token": " no", "logprob": -1.0}]
    >>> content = [{"token": "Yes", "logprob": -0.5, "top_logprobs": tokens}]
    >>> round(p_yes_of({"choices": [{"logprobs": {"content": content}}]}), 3)
    0.607

    Raises:
        RequestFailed: there are no logprobs, or neither yes nor no is among the likeliest tokens.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    given = choice.get("logprobs") if isinstance(choice, dict) else None
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        raise RequestFailed(f"{NO_LOGPROBS}: the endpoint gives none, so P(yes) is not known")
    first = content[0]
    listed = first.get("top_logprobs") or [first]
    found = {"yes": 0.0, "no": 0.0}
    for one in listed if isinstance(listed, list) else []:
        word, logprob = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (0, 0)
        if not isinstance(word, str) or not isinstance(logprob, int | float):
            continue
        name = word.strip().strip(".,!").lower()
        if name in found and math.isfinite(logprob):
            found[name] += math.exp(min(0.0, logprob))
    if not any(found.values()):
        raise RequestFailed("no_answer: neither yes nor no is among the likeliest tokens")
    return min(1.0, found["yes"])
