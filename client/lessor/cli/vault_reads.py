"""Reads what Vault or OpenBao says about an AWS engine; nothing is written there, and no secret is read.

Sources: HashiCorp Vault, "AWS secrets engine (API)", "/sys/mounts", "/sys/policies".
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final

import click

from lessor.values import JsonValue

SECONDS: Final = 30.0
MAX_BYTES: Final = 16 << 20
DENIED, NOT_FOUND, UNREACHABLE = 4, 5, 6
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_NOT_LISTED: Final = (400, 405, 501)
"""Statuses for a method that a server or a proxy does not know."""
Answer = dict[str, JsonValue]


class VaultFailed(click.ClickException):
    """Vault refuses a read, or is away."""

    def __init__(self, message: str, exit_code: int = 1, status: int = 0) -> None:
        """Keep the message, the exit code, and the status of HTTP, 0 if there was no answer."""
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code  # type: ignore[misc]  # click reads the instance's


@dataclass(frozen=True, slots=True)
class VaultSource:
    """A server of Vault's API; the repr contains no token."""

    addr: str
    token: str = field(repr=False)
    cacert: str = ""
    namespace: str = ""

    def __post_init__(self) -> None:
        """Require an address that has a host."""
        parts = urllib.parse.urlsplit(self.addr)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise click.UsageError(f"--addr: {self.addr!r} is not a URL; write https://HOST:8200")

    @property
    def is_plaintext(self) -> bool:
        """Return whether others on the network can read the token."""
        parts = urllib.parse.urlsplit(self.addr)
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def read(self, path: str) -> Answer | None:
        """Return the ``data`` of a path; None if there is nothing.

        Raises:
            VaultFailed: It is denied, or Vault does not answer as documented.
        """
        return _data(self._ask("GET", path))

    def read_tune(self, mount: str) -> Answer | None:
        """Return an engine's settings; None if there is no engine, for which Vault answers 400."""
        try:
            return self.read(f"sys/mounts/{mount}/tune")
        except VaultFailed as error:
            if error.status == 400:
                return None
            raise

    def list(self, path: str) -> list[str]:
        """Return the names under a path, without folders; raises ``VaultFailed``.

        A proxy may not know the method LIST, for which Vault documents a query as well.
        """
        try:
            answer = self._ask("LIST", path)
        except VaultFailed as error:
            if error.status not in _NOT_LISTED:
                raise
            answer = None
        if answer is None:
            answer = self._ask("GET", path, "?list=true")
        keys = (_data(answer) or {}).get("keys")
        names = keys if isinstance(keys, list) else []
        return [key for key in names if isinstance(key, str) and not key.endswith("/")]

    def _ask(self, method: str, path: str, query: str = "") -> Answer | None:
        """Return the answer to a request; None for the status 404."""
        headers = {"X-Vault-Token": self.token, "X-Vault-Request": "true"}
        headers |= {"X-Vault-Namespace": self.namespace} if self.namespace else {}
        url = f"{self.addr.rstrip('/')}/v1/{urllib.parse.quote(path)}{query}"
        request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 - the scheme was checked
        try:
            with self._opener().open(request, timeout=SECONDS) as answer:
                content = answer.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise _refusal(path, error.code) from None
        except (OSError, HTTPException, ssl.SSLError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise VaultFailed(f"{self.addr} can't be reached: {reason}; check --addr", UNREACHABLE) from None
        try:
            found = json.loads(content) if len(content) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise VaultFailed(f"{self.addr} does not answer {path} as Vault does; check --addr")
        return found

    def _opener(self) -> urllib.request.OpenerDirector:
        try:
            context = ssl.create_default_context(cafile=self.cacert or None)
        except OSError as error:
            raise click.UsageError(f"--cacert: {self.cacert} can't be used: {error.strerror}") from None
        https = urllib.request.HTTPSHandler(context=context)
        return urllib.request.build_opener(https, NoRedirect, urllib.request.ProxyHandler(_proxies()))


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the token to another host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Refuse."""


def _proxies() -> dict[str, str]:
    """Return the proxies for https alone, because a proxy can read any other request."""
    return {name: url for name, url in urllib.request.getproxies().items() if name == "https"}


def _data(answer: Answer | None) -> Answer | None:
    data = None if answer is None else answer.get("data")
    return data if isinstance(data, dict) else None


def _refusal(path: str, status: int) -> VaultFailed:
    """Return the error for a status that is neither success nor 404."""
    if status == 403:
        fix = "use one whose policy allows it"
        return VaultFailed(f"Vault denies this token to read {path}; {fix}", DENIED, status)
    code = UNREACHABLE if status in {429, 502, 503, 504} else 1
    return VaultFailed(f"Vault answers {status} for {path}; check --addr and --mount", code, status)
