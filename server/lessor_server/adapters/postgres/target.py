"""The database of ``store.url``, a URI of libpq, with the password and authorities of other settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES: Final = ("postgresql", "postgres")
IGNORED: Final = frozenset(
    (
        "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode",
        "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
        "require_auth", "sslcompression", "sslsni", "tcp_user_timeout",
    )
)  # fmt: skip
"""Parameters of libpq (PostgreSQL, "Parameter Key Words") that have no meaning for the driver."""
SSL_MODES: Final = frozenset(("disable", "allow", "prefer", "require", "verify-ca", "verify-full"))
SESSION_ATTRIBUTES: Final = frozenset(
    ("any", "primary", "read-only", "read-write", "standby", "prefer-standby")
)


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """A database; its text never has the password.

    ``ca_file`` has the authorities (PEM) that may sign the server's certificate. ``password_file`` is read at
    each connection, so that a rotated password is used without a restart.
    """

    url: str = field(repr=False)
    ca_file: Path | None = None
    password_file: Path | None = None

    def __str__(self) -> str:
        """Return the URI without the password."""
        parts = urlsplit(self.url)
        user, at, hosts = parts.netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}{at}{hosts}"
        query = urlencode([(key, value) for key, value in _query(self.url) if key != "password"], safe="/,-")
        return parts._replace(netloc=netloc, query=query).geturl()

    def connect_arguments(self) -> dict[str, Any]:
        """Return what the driver connects with."""
        parts, given = urlsplit(self.url), dict(_query(self.url))
        query = {key: value for key, value in given.items() if key not in IGNORED}
        if self.ca_file is not None:
            query["sslrootcert"] = str(self.ca_file)
            query.setdefault("sslmode", "verify-full")
        query.setdefault("target_session_attrs", "any" if "," not in hosts_of(self.url) else "read-write")
        dsn = parts._replace(query=urlencode(query, safe="/,", quote_via=quote)).geturl()
        if self.password_file is None:
            return {"dsn": dsn}
        return {"dsn": dsn, "password": _reader_of(self.password_file)}


def find_problem(url: str) -> str:
    """Return what is wrong with a URI, without the password, or an empty text."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return "is not a URI"
    names = [name for name, _ in given]
    query = dict(given)
    if parts.scheme not in SCHEMES:
        return "does not begin with postgresql://"
    if len(names) != len(set(names)):
        return "has a parameter twice"
    if query.get("sslmode", "prefer") not in SSL_MODES:
        return "has an sslmode that does not exist"
    if query.get("target_session_attrs", "any") not in SESSION_ATTRIBUTES:
        return "has a target_session_attrs that does not exist"
    if parts.fragment:
        return "has a #: write it as %23"
    return ""


def has_password(url: str) -> bool:
    """Return whether a URI has a password."""
    user, _, _ = urlsplit(url).netloc.rpartition("@")
    return ":" in user or "password" in dict(_query(url))


def hosts_of(url: str) -> str:
    """Return the hosts of a URI, as they are written."""
    return dict(_query(url)).get("host") or unquote(urlsplit(url).netloc.rpartition("@")[2])


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def _reader_of(path: Path) -> Callable[[], str]:
    return lambda: path.read_text(encoding="utf-8").rstrip("\r\n")
