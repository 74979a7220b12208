"""Credentials of an endpoint: sent to it, and never printed, logged or stored."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit, urlunsplit

MASK = "***"
# Query parameters shown as they are; the value of any other may be a credential.
PLAIN_PARAMETERS = frozenset({"api-version", "version", "deployment", "model", "region"})
KEY_IN_PATH = re.compile(r"(?:sk|pk|rk|key|token|bearer|secret)[-_][\w.-]{8,}", re.IGNORECASE)
LOGIN_IN_TEXT = re.compile(r"[^/@\s]+@|\?.*", re.DOTALL)
# Shorter keys are placeholders such as "none"; replies may use the same words.
SHORTEST_IN_REPLIES = 8
# A server may repeat a key cut short; a part this long is masked as well.
PART_LENGTH = 12


@dataclass(frozen=True)
class EndpointAddress:
    """An endpoint's URL, taken apart.

    Attributes:
        shown: the URL as it may be printed and stored: login left out, other credentials masked.
            A URL without credentials is shown as it is, since it is part of cache keys.
        base_url: what the calls' paths are appended to; without login and query.
        query: parameters of every call.
        login: user and password, decoded; None without them.
        secrets: credentials of the URL.
    """

    shown: str
    base_url: str
    query: dict[str, str]
    login: tuple[str, str] | None
    secrets: tuple[str, ...]

    @staticmethod
    def parse(url: str) -> "EndpointAddress":
        """Take a URL apart.

        Raises:
            ValueError: no http or https URL; the message is the URL as it may be shown.
        """
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a host or a port that cannot be read
            valid = False
        if not valid:
            raise ValueError(LOGIN_IN_TEXT.sub("", url))
        host = parts.netloc.rpartition("@")[2]
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        hidden = {name: value for name, value in query.items() if name not in PLAIN_PARAMETERS}
        keys = [segment for segment in parts.path.split("/") if KEY_IN_PATH.fullmatch(segment)]
        path = parts.path
        for key in keys:
            path = path.replace(key, MASK)
        shown_query = "&".join(
            f"{name}={MASK if name in hidden else value}" for name, value in query.items()
        )
        login = None
        if "@" in parts.netloc:
            login = (unquote(parts.username or ""), unquote(parts.password or ""))
        user, password = login or ("", "")
        # Servers echo the header; base64 of the whole is not that of a part.
        header = () if login is None else (_base64(":".join(login)),)
        return EndpointAddress(
            shown=urlunsplit((parts.scheme, host, path, shown_query, "")),
            base_url=urlunsplit((parts.scheme, host, parts.path, "", "")),
            query=query,
            login=login,
            # A user without a password is a token.
            secrets=tuple(filter(None, (password or user, *header, *hidden.values(), *keys))),
        )

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries the login; empty without one."""
        if self.login is None:
            return {}
        return {"Authorization": f"Basic {_base64(':'.join(self.login))}"}


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
    yield _base64(secret)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


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
