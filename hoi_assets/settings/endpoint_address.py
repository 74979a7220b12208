"""An endpoint's URL, its credentials apart: those are sent, and never printed, logged or stored."""

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from hoi_assets.yaml_file import HIDDEN_INPUT

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

MASK = "***"
# Query parameters shown as they are; the value of any other may be a credential.
PLAIN_PARAMETERS = frozenset({"api-version", "version", "deployment", "model", "region"})
KEY_IN_PATH = re.compile(r"(?:sk|pk|rk|key|token|bearer|secret)[-_][\w.-]{8,}", re.IGNORECASE)
LOGIN_IN_TEXT = re.compile(r"[^/@\s]+@|\?.*", re.DOTALL)


@dataclass(frozen=True)
class EndpointAddress:
    """An endpoint's URL, taken apart. As text, and dumped with the settings, it is `shown`.

    Attributes:
        shown: the URL as it may be printed and stored: login left out, other credentials masked.
            A URL without credentials is shown as it is, since it is part of cache keys.
        base_url: what the calls' paths are appended to; without login and query.
        query: parameters of every call.
        login: user and password, decoded; None without them.
        secrets: credentials of the URL.
    """

    shown: str
    base_url: str = field(repr=False)
    query: dict[str, str] = field(repr=False, hash=False)
    login: tuple[str, str] | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

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
        header = () if login is None else (encode_base64(":".join(login)),)
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
        return {"Authorization": f"Basic {encode_base64(':'.join(self.login))}"}

    def __str__(self) -> str:
        return self.shown

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> "CoreSchema":
        from pydantic_core import PydanticCustomError, core_schema

        def read(given: Any) -> EndpointAddress:
            if isinstance(given, cls):
                return given
            if not isinstance(given, str):
                raise PydanticCustomError("url_type", "is not a URL")
            try:
                return cls.parse(given)
            except ValueError as error:
                shown = repr(str(error))
            example = "http://127.0.0.1:8000/v1"
            said = "{shown} is not a URL; give one such as {example}, or leave it out"
            raise PydanticCustomError(HIDDEN_INPUT, said, {"shown": shown, "example": example})

        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
        )


def encode_base64(text: str) -> str:
    """Base64 of the text in UTF-8."""
    return base64.b64encode(text.encode()).decode("ascii")
