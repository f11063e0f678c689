"""The setting ``store.url``: ``sqlite:``, or the URI of a PostgreSQL database as libpq reads it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SQLITE: Final = "sqlite:"
SCHEMES: Final = ("postgresql", "postgres")
SSL_MODES: Final = frozenset(("disable", "allow", "prefer", "require", "verify-ca", "verify-full"))
SESSION_ATTRIBUTES: Final = frozenset(
    ("any", "primary", "read-only", "read-write", "standby", "prefer-standby")
)
MAX_LENGTH: Final = 4096
_HOST: Final = re.compile(r"(\[[^]]*\]|[^]:[]*)(:[0-9]+)?")


def find_problem(url: str) -> str:
    """Return what is wrong with a URI, without the password, or an empty text."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return "is not a URI"
    query = dict(given)
    if parts.scheme not in SCHEMES:
        return "does not begin with postgresql://"
    if not url.startswith(f"{parts.scheme}://"):
        return "does not have // after its scheme"
    if len(url) > MAX_LENGTH:
        return f"has more than {MAX_LENGTH} characters"
    if parts.fragment:
        return "has a #; in a password it is %23"
    _, at, hosts = parts.netloc.rpartition("@")
    # The rest of a password would be taken for the path, and shown.
    if "@" in parts.path or ("@" in parts.query and not at):
        return "has an @ after its host; in a password / is %2F and ? is %3F"
    if not all(map(_HOST.fullmatch, hosts.split(","))):
        return "has a port that is not a number"
    if len(query) != len(given):
        return "has a parameter twice"
    if query.get("sslmode", "prefer") not in SSL_MODES:
        return "has an sslmode that does not exist"
    if query.get("target_session_attrs", "any") not in SESSION_ATTRIBUTES:
        return "has a target_session_attrs that does not exist"
    return ""


def parse_query(url: str) -> list[tuple[str, str]]:
    """Return the parameters of a URI, in their order."""
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def has_password(url: str) -> bool:
    """Return whether a URI has a password."""
    user, _, _ = urlsplit(url).netloc.rpartition("@")
    return ":" in user or "password" in dict(parse_query(url))


def without_password(url: str) -> str:
    """Return a URI as it may be shown."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    query = urlencode([(key, value) for key, value in parse_query(url) if "password" not in key], safe="/,-")
    shown = f"{parts.scheme}://{user.partition(':')[0]}{at}{hosts}{parts.path}"  # geturl drops an empty host
    return f"{shown}?{query}" if query else shown


def hosts_of(url: str) -> str:
    """Return the hosts of a URI, as they are written."""
    return dict(parse_query(url)).get("host") or unquote(urlsplit(url).netloc.rpartition("@")[2])
