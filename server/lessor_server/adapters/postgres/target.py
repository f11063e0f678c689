"""The database of ``store.url``, a URI of libpq, with the password and authorities of other settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from lessor_server.domain.store_url import hosts_of, parse_query, without_password

IGNORED: Final = frozenset(
    (
        "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode",
        "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
        "require_auth", "sslcompression", "sslsni", "tcp_user_timeout",
    )
)  # fmt: skip
"""Parameters of libpq (PostgreSQL, "Parameter Key Words") that have no meaning for the driver."""


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
        return without_password(self.url)

    def connect_arguments(self) -> dict[str, Any]:
        """Return what the driver connects with."""
        parts, given = urlsplit(self.url), dict(parse_query(self.url))
        query = {key: value for key, value in given.items() if key not in IGNORED}
        if self.ca_file is not None:
            query["sslrootcert"] = str(self.ca_file)
            query.setdefault("sslmode", "verify-full")
        query.setdefault("target_session_attrs", "any" if "," not in hosts_of(self.url) else "read-write")
        dsn = parts._replace(query=urlencode(query, safe="/,", quote_via=quote)).geturl()
        if self.password_file is None:
            return {"dsn": dsn}
        return {"dsn": dsn, "password": _reader_of(self.password_file)}


def _reader_of(path: Path) -> Callable[[], str]:
    return lambda: path.read_text(encoding="utf-8").rstrip("\r\n")
