"""A parser for each kind of setting: from text or TOML to the value, or ``InvalidValue``."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lessor_server.domain.errors.base import shown
from lessor_server.domain.lease_id import is_name
from lessor_server.domain.sealing_key import SEALING_KEY_FIX, SealingKeyPlace, parse_sealing_key
from lessor_server.domain.secret import TokenHash
from lessor_server.domain.store_url import SQLITE, find_problem
from lessor_server.settings import file_checks

MIN_TOKEN: Final = 16
MAX_RATE: Final = 100_000.0
MAX_SOCKET_PATH: Final = 107
"""The maximum bytes of a unix socket's path on Linux (unix(7)), without the final NUL."""

_DURATION: Final = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ADDRESS_FIX: Final = "write HOST:PORT, [IPV6]:PORT or unix:/PATH"
_STORE_FIX: Final = "write sqlite: or postgresql://USER@HOST[:PORT]/DATABASE[?sslmode=verify-full]"
_SOCKET_FIX: Final = "name a file in an existing folder"


class InvalidValue(ValueError):
    """A value breaks the rule of its setting."""

    def __init__(self, problem: str, fix: str) -> None:
        """Keep the problem and its fix, which never contain a secret."""
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Address:
    """The address to listen on: a host and a port (0 lets the system choose), or a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Return it in gRPC's form, which is also that of the setting."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on, and whether its callers need a certificate.

    gRPC either requires a certificate of every caller of an address or asks for none. ``client_auth`` is
    ``require`` or ``none``; if it is empty, a certificate is required if ``tls.client_ca_file`` is set.
    """

    address: Address
    client_auth: str = ""


# --- text, numbers, choices -----------------------------------------------------------------------


def text(value: object) -> str:
    """Accept a text that is not empty."""
    if not isinstance(value, str):
        raise InvalidValue(f"is {kind(value)}, not text", 'write it in quotes, "…"')
    if not value.strip():
        raise InvalidValue("is empty", "give it a value or leave it out")
    if "\0" in value:
        raise InvalidValue("holds a NUL character", "remove it")
    return value


def boolean(value: object) -> bool:
    """Accept ``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word not in {"true", "false"}:
        raise InvalidValue(f"{_shown(value)} is not a boolean", "write true or false")
    return word == "true"


def rate(value: object) -> float:
    """Accept calls per second: above 0, at most 100,000."""
    number = _number(value)
    if not 0 < number <= MAX_RATE:
        raise InvalidValue(
            f"{_shown(value)} is not above 0 and at most {MAX_RATE:g}", "give calls per second"
        )
    return number


def count(least: int, most: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from ``least`` to ``most``."""

    def parse(value: object) -> int:
        number = _number(value)
        if not least <= number <= most or not number.is_integer():
            raise InvalidValue(
                f"{_shown(value)} is not a whole number from {least} to {most}",
                "give a number within that range",
            )
        return int(number)

    return parse


def duration(least: str, most: str) -> Callable[[object], timedelta]:
    """Return a parser of durations (``10s``, ``1h30m``: largest unit first) from ``least`` to ``most``."""
    shortest, longest = _duration(least), _duration(most)

    def parse(value: object) -> timedelta:
        span = _duration(value)
        if not shortest <= span <= longest:
            raise InvalidValue(
                f"{_shown(value)} is not from {least} to {most}", "give a duration within that range"
            )
        return span

    return parse


def choice(*words: str) -> Callable[[object], str]:
    """Return a parser of one of a few words, in upper or lower case."""

    def parse(value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word not in words:
            raise InvalidValue(f"{_shown(value)} is not a valid choice", f"write one of {', '.join(words)}")
        return word

    return parse


def token(value: object) -> TokenHash:
    """Accept a token of at least 16 printable ASCII characters; return only its hash."""
    if not isinstance(value, str):
        raise InvalidValue(f"is {kind(value)}, not text", 'write it in quotes, "…"')
    if len(value) < MIN_TOKEN:
        raise InvalidValue(f"has {len(value)} characters", f"give at least {MIN_TOKEN}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidValue("has blanks or characters outside ASCII", "use letters, digits and punctuation")
    return TokenHash.of(value)


# --- places ---------------------------------------------------------------------------------------


def address(value: object) -> Address:
    """Accept ``host:port``, ``[::1]:port`` or ``unix:/path``."""
    written = text(value)
    scheme, _, path = written.partition(":")
    if scheme.lower() == "unix":
        _require_socket_path(path, written)
        return Address(path=path)
    host, colon, port = written.rpartition(":")
    if not colon or _PORT.fullmatch(port) is None or int(port) > 65_535:
        raise InvalidValue(f"{shown(written)} has no port from 0 to 65535", _ADDRESS_FIX)
    return Address(host=_host(host, written), port=int(port))


def optional_address(value: object) -> Address | None:
    """Accept ``host:port`` or ``[::1]:port``, or an empty text, which turns the listener off."""
    if value == "":
        return None
    found = address(value)
    if found.path:
        raise InvalidValue(f"{shown(str(value))} is a unix socket", "write HOST:PORT or [IPV6]:PORT")
    return found


def optional_listener(value: object) -> Listener | None:
    """Accept ``host:port`` or a table of ``address`` and ``client_auth``, or an empty text, which is none."""
    if value == "":
        return None
    found = _listener(value)
    if found.address.path:
        raise InvalidValue(f"{found.address} is a unix socket", "write HOST:PORT or [IPV6]:PORT")
    return found


def host_name(value: object) -> str:
    """Accept the name of a host or an IP address, without a port; return it in lower case."""
    written = text(value)
    try:
        return str(ipaddress.ip_address(written.strip("[]")))
    except ValueError:
        pass
    if not _HOST.fullmatch(written):
        raise InvalidValue(
            f"{shown(written)} is not a host name", "write a name or an address, without a port"
        )
    return written.lower()


def listeners(value: object) -> tuple[Listener, ...]:
    """Accept an address, or a list of addresses and of tables of ``address`` and ``client_auth``."""
    found = tuple(map(_listener, items(value)))
    if not found:
        raise InvalidValue("names no address", _ADDRESS_FIX)
    return found


def _listener(value: object) -> Listener:
    if not isinstance(value, dict):
        return Listener(address(value))
    if unknown := value.keys() - {"address", "client_auth"}:
        raise InvalidValue(f"has an unknown key {_shown(min(unknown))}", "give address and client_auth")
    client_auth = choice("require", "none")(value["client_auth"]) if "client_auth" in value else ""
    if "address" not in value:
        raise InvalidValue("has no address", _ADDRESS_FIX)
    return Listener(address(value["address"]), client_auth)


def _require_socket_path(path: str, written: str) -> None:
    """Raise ``InvalidValue`` unless a unix socket can be created at ``path``; a stale one is replaced."""
    if not path.startswith("/"):
        raise InvalidValue(f"{shown(written)} has no absolute path", _ADDRESS_FIX)
    if (size := len(os.fsencode(path))) > MAX_SOCKET_PATH:
        raise InvalidValue(
            f"{shown(written)} has a path of {size} bytes", f"give a path of at most {MAX_SOCKET_PATH}"
        )
    with _report_os_errors(f"{shown(written)} can't be reached", _SOCKET_FIX):
        above = Path(path).parent.stat().st_mode
        mode = Path(path).lstat().st_mode if os.path.lexists(path) else None
    if not stat.S_ISDIR(above):
        raise InvalidValue(f"{shown(written)} is not in a folder", _SOCKET_FIX)
    if mode is not None and not stat.S_ISSOCK(mode):
        raise InvalidValue(
            f"{shown(written)} exists and is not a socket", "name a file that does not exist yet"
        )


def folder(value: object) -> Path:
    """Accept the path of a folder, or one that is free: the start creates the folder."""
    path = Path(text(value))
    with _report_os_errors(f"{_shown(path)} can't be reached", "name a folder"):
        there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir():
        raise InvalidValue(f"{_shown(there)} is not a folder", "name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidValue(
            f"{_shown(there)} can't be written to", "give the server's user write access to it"
        )
    with _report_os_errors(f"{_shown(path)} can't be read", "run chmod 700 on it"):
        problem = file_checks.data_dir_problem(path) if path.is_dir() else None
    if problem:
        raise InvalidValue(*problem)
    return path


def readable_file(value: object) -> Path:
    """Accept a file that is readable now, and that no other user can change."""
    path = Path(text(value))
    with _report_os_errors(f"{_shown(path)} can't be read", "name a readable file"):
        if wrong := file_checks.kind_problem(path):
            raise InvalidValue(f"{_shown(path)} {wrong[0]}", wrong[1])
        with path.open("rb"):
            problem = file_checks.file_problem(path)
    if problem:
        raise InvalidValue(*problem)
    return path


def log_file(value: object) -> Path:
    """Accept a file that the server may append to, or create."""
    path = Path(text(value))
    with _report_os_errors(f"{_shown(path)} can't be reached", "name a file in a folder that exists"):
        is_there = path.exists()
        if not path.absolute().parent.is_dir():
            raise InvalidValue(f"{_shown(path)} is not in a folder", "create the folder first")
        wrong = file_checks.kind_problem(path) or (file_checks.writers_problem(path) if is_there else None)
    if wrong:
        raise InvalidValue(f"{_shown(path)} {wrong[0]}" if not is_there else wrong[0], wrong[1])
    return path


def socket_path(value: object) -> Path:
    """Accept the absolute path of a unix socket, which need not exist yet."""
    path = text(value)
    if not path.startswith("/") or len(os.fsencode(path)) > MAX_SOCKET_PATH:
        fix = f"give an absolute path of at most {MAX_SOCKET_PATH} bytes"
        raise InvalidValue(f"{_shown(path)} can't be the path of a socket", fix)
    return Path(path)


def authorities(value: object) -> Path:
    """Accept a file of CA certificates."""
    path = readable_file(value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise InvalidValue(
            f"{_shown(path)} holds no certificates in PEM", "name a file of certificates, each in PEM"
        ) from None
    return path


def pair_problem(cert_file: Path, key_file: Path) -> str | None:
    """Return why a certificate and its key can't be used, or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without this, an encrypted key would prompt at the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        return f"and tls.key_file do not work as a pair: {reason or 'not PEM'}"
    return None


# --- lists and their items ------------------------------------------------------------------------


def items(value: object) -> list[object]:
    """Accept a list, or a text with commas between its items."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise InvalidValue(f"is {kind(value)}, not a list", 'write ["…", "…"]')
    return value


def token_dir(value: object) -> Path:
    """Accept the absolute path of an existing folder."""
    path = Path(text(value))
    if not path.is_absolute() or ".." in path.parts:
        raise InvalidValue(f"{_shown(path)} is not an absolute path", "begin it with /, without ..")
    if not path.is_dir():
        raise InvalidValue(f"{_shown(path)} is not a folder", "name an existing folder")
    return path


def mount(value: object) -> str:
    """Accept the name of a mount."""
    name = text(value)
    if not is_name(name):
        raise InvalidValue(
            f"{shown(name)} is not the name of a mount", "use letters, digits and _ . - inside"
        )
    return name


def endpoint(value: object) -> str:
    """Accept a URL of only scheme, host and port; return it as ``scheme://host[:port]``."""
    url = text(value)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidValue(f"{shown(url)} is not a URL", "write https://HOST[:PORT]") from error
    extra = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in {"http", "https"} or not parts.hostname or extra:
        # The part before an @ may be a password.
        named = "a URL" if "@" in url else shown(url)
        raise InvalidValue(f"{named} is not only a scheme, a host and a port", "write https://HOST[:PORT]")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def sealing_key(value: object) -> SealingKeyPlace | None:
    """Accept the place of a key-encryption key."""
    if value is None or isinstance(value, SealingKeyPlace):
        return value
    try:
        return parse_sealing_key(text(value))
    except ValueError as error:
        raise InvalidValue(str(error), SEALING_KEY_FIX) from None


def store_url(value: object) -> str:
    """Accept where the store is; the text of a problem has no password."""
    url = text(value)
    if url == SQLITE:
        return url
    if problem := find_problem(url):
        raise InvalidValue(problem, _STORE_FIX)
    return url


# --- shared ---------------------------------------------------------------------------------------


def _host(host: str, written: str) -> str:
    """Parse the host of an address; IPv6 needs brackets."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise InvalidValue(
                f"{shown(written)} has no IPv6 address in its brackets", _ADDRESS_FIX
            ) from error
    if _HOST.fullmatch(host) is None:
        raise InvalidValue(f"{shown(written)} has no host", _ADDRESS_FIX)
    return host


def _number(value: object) -> float:
    """Return a finite number, or else NaN, which is in no range."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _duration(value: object) -> timedelta:
    """Parse a text with units."""
    written = value if isinstance(value, str) else ""
    parts = _DURATION.fullmatch(written)
    if not written or parts is None:
        raise InvalidValue(
            f"{_shown(value)} is not a duration", 'write a text with units, like "10s" or "1h30m"'
        )
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in parts.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


@contextmanager
def _report_os_errors(problem: str, fix: str) -> Iterator[None]:
    """Raise ``InvalidValue`` for an OSError in the block."""
    try:
        yield
    except OSError as error:
        raise InvalidValue(f"{problem}: {error.strerror}", fix) from error


def _shown(value: object) -> str:
    """Return a value as a message shows it."""
    try:
        return shown(str(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"this {kind(value).removeprefix('a ')}"


def kind(value: object) -> str:
    """Return the name of a TOML value's type, with its article."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "table"}
    return f"a {kinds.get(type(value), 'time')}"
