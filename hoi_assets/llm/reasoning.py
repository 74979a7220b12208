"""What a model thought aloud before its answer, told apart from the answer.

Servers that know a model's format give its thoughts in a field of their own
(`completion.REASONING_FIELDS`); others leave them in the text, in the model's own marks.
"""

import re

# By example: <think>, </thinking>, <seed:think>, ◁think▷ (also without the closing bracket);
# [THINK]; <|begin_of_thought|>, <|START_THINKING|>; <|channel>thought and <channel|>;
# "Here is my thought process:" and "Here is my response:".
_MARKS = re.compile(
    r"""
      [<◁](?P<tag>/?)(?:\w+:)?(?:think|thought|reason|reflect)\w*[^\S\n]*[>▷]?
    | \[(?P<bracket>/?)think(?:ing)?\]
    | <\|(?:(?:begin|start)|(?P<end>end))_(?:of_)?(?:thought|thinking)\|>
    | <\|channel>(?:thought)? | (?P<channel><channel\|>)
    | here(?:'s|\ is)\ my\ (?:thought\ process|(?P<response>response)):
    """,
    re.IGNORECASE | re.VERBOSE,
)
# OpenAI's harmony format: <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final…
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?P<name>\w*)[^<]*(?:<\|constrain\|>[^<]*)?(?P<message><\|message\|>)?"
)
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|start|call)\|>")
# The same where a server dropped the marks.
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z{])")
_BARE_FINAL = "assistantfinal"


def answer_of(text: str) -> str | None:
    """The text without the model's thoughts; None where they do not end, so that nothing is the
    answer.

    Some servers leave out the mark that opens the thoughts.

    >>> answer_of("<think>red or green?</think>red")
    'red'
    >>> answer_of("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
    ...           "<|message|>red<|return|>")
    'red'
    >>> answer_of("[THINK]red, I think") is None
    True
    """
    channels = list(_CHANNEL.finditer(text))
    if channels:
        last = channels[-1]
        if last["name"] != "final" or last["message"] is None:
            return None
        return _CHANNEL_ENDS.split(text[last.end() :], maxsplit=1)[0]
    if _BARE_ANALYSIS.match(text):
        _, mark, answer = text.rpartition(_BARE_FINAL)
        return answer if mark else None
    depth, answer = 0, text
    for found in _MARKS.finditer(text):
        closes = any(found[name] for name in ("tag", "bracket", "end", "channel", "response"))
        depth = max(0, depth - 1) if closes else depth + 1
        answer = text[found.end() :]
    return None if depth else answer
