"""Reads what Vault or OpenBao says about an AWS engine; nothing is written there, and no secret is read.

Sources: HashiCorp Vault, "AWS secrets engine (API)", "/sys/mounts", "/sys/policies".
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final

import click

from lessor.values import JsonValue

SECONDS: Final = 30.0
MAX_BYTES: Final = 16 << 20
DENIED, NOT_FOUND, UNREACHABLE = 4, 5, 6
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
Answer = dict[str, JsonValue]


class VaultFailed(click.ClickException):
    """Vault refuses a read, or is away."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        """Keep the message and the exit code."""
        super().__init__(message)
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
        answer = self._get(path, {})
        data = None if answer is None else answer.get("data")
        return data if isinstance(data, dict) else None

    def list(self, path: str) -> list[str]:
        """Return the names under a path, without folders; raises ``VaultFailed``."""
        answer = self._get(path, {"list": "true"})
        data = None if answer is None else answer.get("data")
        keys = data.get("keys") if isinstance(data, dict) else None
        return (
            [key for key in keys if isinstance(key, str) and not key.endswith("/")]
            if isinstance(keys, list)
            else []
        )

    def _get(self, path: str, query: Mapping[str, str]) -> Answer | None:
        url = f"{self.addr.rstrip('/')}/v1/{urllib.parse.quote(path)}"
        headers = {"X-Vault-Token": self.token, "X-Vault-Request": "true"}
        headers |= {"X-Vault-Namespace": self.namespace} if self.namespace else {}
        full = f"{url}?{urllib.parse.urlencode(query)}" if query else url
        request = urllib.request.Request(full, headers=headers)  # noqa: S310 - the scheme was checked
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


def _refusal(path: str, status: int) -> VaultFailed:
    """Return the error for a status that is neither success nor 404."""
    if status == 403:
        return VaultFailed(f"Vault denies this token to read {path}; use one whose policy allows it", DENIED)
    code = UNREACHABLE if status in {429, 502, 503, 504} else 1
    return VaultFailed(f"Vault answers {status} for {path}; check --addr and --mount", code)
