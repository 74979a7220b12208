"""Masks the credentials of an endpoint in what it answers."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, quote_plus

from hoi_assets.settings.endpoint_address import MASK, encode_base64

# Shorter keys are placeholders such as "none"; replies may use the same words.
SHORTEST_IN_REPLIES = 8
# A server may repeat a key cut short; a part this long is masked as well.
PART_LENGTH = 12


@dataclass(frozen=True)
class Redactor:
    """Masks secrets in texts that come from a server, also encoded or cut short.

    Example:
        >>> Redactor(("sk-0123456789abcdef",)).redact("bad key sk-0123456789abcd...")
        'bad key ***...'
    """

    secrets: tuple[str, ...]

    def redact(self, text: str) -> str:
        """A message without the secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return _mask_parts(text, self.secrets)

    def redact_reply(self, text: str) -> str:
        """A model's reply without the secrets; placeholders such as "none" are left alone."""
        long = tuple(secret for secret in self.secrets if len(secret) >= SHORTEST_IN_REPLIES)
        return Redactor(long).redact(text) if long else text

    @cached_property
    def _forms(self) -> list[str]:
        """The secrets as servers write them, longest first."""
        forms = {form for secret in self.secrets for form in _forms(secret)}
        return sorted(forms, key=lambda form: (-len(form), form))


def _forms(secret: str) -> Iterable[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield encode_base64(secret)


def _mask_parts(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        start = 0
        while start + PART_LENGTH <= len(secret):
            end = start + PART_LENGTH
            if secret[start:end] in text:
                while end < len(secret) and secret[start : end + 1] in text:
                    end += 1
                text = text.replace(secret[start:end], MASK)
            else:
                start += 1
    return text
