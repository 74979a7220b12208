"""The URL of a ledger on a server: read, shown without its password, and its errors named."""

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from hoi_assets.errors import HoiError
from hoi_assets.settings.endpoint_address import MASK

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError

VARIABLE = "HOI_LEDGER_URL"
EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
DRIVER = "postgresql+psycopg"
DRIVERS = ("postgresql", "postgres", DRIVER)
# Options for libpq, unless the URL sets them: a dead server is detected.
TIMEOUTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "client_encoding": "utf8",
    "application_name": "hoi-assets",
}
# Answers about a login come without a code. What none of these describes may pass, and is retried.
LOGIN = re.compile(r"password|authentication|pg_hba|role .* (does not exist|is not permitted)")
NO_DATABASE = re.compile(r"database .* does not exist")
NO_RIGHT = re.compile(r"permission denied")
BAD_OPTION = re.compile(r"invalid (connection option|.* value|.*URI)|sslmode")
# SQLSTATE: connection lost, shutting down, starting, too many connections, deadlock, serialisation.
PASSING = re.compile(r"08...|57P0[123]|53300|40P01|40001")
REMEDIES = {
    "28": f"check user and password in {VARIABLE} (or PGPASSWORD, or ~/.pgpass)",
    "3D": f"make it with `createdb -E UTF8 NAME`, or name another one in {VARIABLE}",
    "42501": "give this user the right: `GRANT CREATE, USAGE ON SCHEMA public TO …`, or make the "
    "user the owner of the database",
    "53": "free room on the server, then run again: finished work is not done twice",
    "55P03": "another process holds it; let it end, then run again",
    "25006": "name the primary server: this one is a replica that is only read",
    "option": f"correct the part after `?` in {VARIABLE}",
}


@dataclass(frozen=True)
class LedgerAddress:
    """A ledger's URL. As text it is `shown`.

    Attributes:
        url: with the password.
        shown: server and database, without login and options.
    """

    url: "sa.URL" = field(repr=False)
    shown: str

    @staticmethod
    def parse(text: str, variable: str = VARIABLE) -> "LedgerAddress":
        """Take a URL apart.

        Args:
            variable: of the environment, that it stands in.

        Raises:
            HoiError: no URL of a Postgres database.
        """
        import sqlalchemy as sa

        # No message repeats the URL, as a password may stand anywhere in a mistyped one.
        wrong = HoiError(
            f"{variable} is not the URL of a Postgres database",
            f"give one such as {EXAMPLE}, or unset it to keep the database in the home; in a "
            "password write @ as %40, / as %2F and % as %25",
        )
        try:
            url = sa.make_url(text)
        except (sa.exc.ArgumentError, ValueError):
            raise wrong from None
        if url.drivername not in DRIVERS or not url.database or "@" in (url.host or ""):
            raise wrong
        place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
        given = {name: value for name, value in TIMEOUTS.items() if name not in url.query}
        full = url.set(drivername=DRIVER).update_query_dict(given)
        return LedgerAddress(full, f"postgresql://{place}/{url.database}")

    def __str__(self) -> str:
        return self.shown

    def masked(self, text: str) -> str:
        """A message in one line, without the password in any form."""
        passwords = (
            self.url.password,
            self.url.query.get("password"),
            os.environ.get("PGPASSWORD"),
        )
        for secret in map(str, filter(None, passwords)):
            for form in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
                text = text.replace(form, MASK)
        return " ".join(text.split())

    def passes(self, error: "DBAPIError", is_connected: bool) -> bool:
        """Whether an error may be gone when the work is done again."""
        if error.connection_invalidated:
            return True
        code = _code(error, is_connected)
        return PASSING.fullmatch(code) is not None if code else not is_connected

    def named(self, error: "DBAPIError", is_connected: bool) -> HoiError:
        """What an error means, and the remedy."""
        code = _code(error, is_connected) or ""
        said = self.masked(str(error.orig))
        remedy = next((text for start, text in REMEDIES.items() if code.startswith(start)), None)
        if remedy is None:
            remedy = f"see the server's log, and {VARIABLE}; finished work is not done twice"
        return HoiError(f"ledger {self.shown}, user {self._user}: {said}", remedy)

    @property
    def _user(self) -> str:
        return repr(self.url.username) if self.url.username else "of the environment"


def _code(error: "DBAPIError", is_connected: bool) -> str | None:
    """SQLSTATE of an error; for a failed login, the one that its words mean; None if unknown."""
    code: Any = getattr(error.orig, "sqlstate", None)
    if code or is_connected:
        return code
    said = str(error.orig)
    # The order matters: a role's absence may be told by a message about its password.
    meant = {"3D000": NO_DATABASE, "42501": NO_RIGHT, "28000": LOGIN, "option": BAD_OPTION}
    return next((name for name, words in meant.items() if words.search(said)), None)
