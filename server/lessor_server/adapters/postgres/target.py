"""The database of ``store.url``, a URI of libpq, with the password and authorities of other settings."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
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
_VERIFYING: Final = ("verify-ca", "verify-full")
_OF_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """A database; its text never has the password.

    ``ca_file`` has the authorities (PEM) that may sign the server's certificate; with it the mode is
    ``verify-full`` unless the URI has another. ``password_file`` is read at each connection, so a rotated
    password needs no restart.
    """

    url: str = field(repr=False)
    ca_file: Path | None = None
    password_file: Path | None = None

    def __str__(self) -> str:
        """Return the URI without the password."""
        return without_password(self.url)

    def connect_arguments(self) -> dict[str, Any]:
        """Return what the driver connects with; raises ``OSError`` if a file of TLS cannot be used."""
        parts, query = urlsplit(self.url), dict(parse_query(self.url))
        if self.ca_file is not None:
            query["sslrootcert"] = str(self.ca_file)
            query.setdefault("sslmode", "verify-full")
        if "," in hosts_of(self.url):
            query.setdefault("target_session_attrs", "read-write")
        arguments: dict[str, Any] = {}
        if query.get("sslmode") in _VERIFYING:
            arguments["ssl"] = _verifying_context(query)
            query = {name: value for name, value in query.items() if name not in _OF_TLS}
        kept = {name: value for name, value in query.items() if name not in IGNORED}
        arguments["dsn"] = parts._replace(query=urlencode(kept, safe="/,", quote_via=quote)).geturl()
        if self.password_file is not None:
            arguments["password"] = _reader_of(self.password_file)
        return arguments


def _verifying_context(query: Mapping[str, str]) -> ssl.SSLContext:
    """Return how a certificate is verified: by ``sslrootcert``, or by the authorities of the system.

    Without ``sslrootcert`` libpq would look for a file in the home directory of the server's user.
    """
    authorities = query.get("sslrootcert", "system")
    context = ssl.create_default_context(cafile=None if authorities == "system" else authorities)
    context.check_hostname = query["sslmode"] == "verify-full"
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"))
    return context


def _reader_of(path: Path) -> Callable[[], str]:
    return lambda: path.read_text(encoding="utf-8").rstrip("\r\n")
