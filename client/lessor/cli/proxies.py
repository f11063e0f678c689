"""Finds the HTTP proxy that gRPC connects through, and connects through it as gRPC does.

Sources: gRPC, "gRPC environment variables" (doc/environment_variables.md); RFC 9110, section 9.3.6 (CONNECT).
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from lessor.clock import MachineClock

VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""The first that is set names the proxy; gRPC reads them in lower case only."""
EXCEPTIONS: Final = ("no_grpc_proxy", "no_proxy")
_CLOCK: Final = MachineClock()
MAX_HEAD: Final = 16 << 10
MIN_SECONDS: Final = 0.001
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")


class ProxyRefuses(OSError):
    """The proxy does not connect to the server; ``status`` is what it answers, 0 if that is not HTTP."""

    def __init__(self, status: int) -> None:
        """Keep the status."""
        super().__init__(f"it answers with HTTP status {status}" if status else "it does not speak HTTP")
        self.status = status


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy and the variable that names it; its text never has the password."""

    variable: str
    host: str
    port: int
    credential: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.host}:{self.port}"

    def connect(self, target: str, seconds: float) -> socket.socket:
        """Return a connection to ``target`` (``host:port``) through the proxy.

        Raises:
            ProxyRefuses: The proxy does not connect.
            OSError: The proxy can't be reached, or does not answer in time.
        """
        until = _CLOCK.monotonic() + seconds
        connection = socket.create_connection((self.host, self.port), seconds)
        try:
            head = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
            if self.credential:
                encoded = base64.b64encode(self.credential.encode()).decode()
                head.append(f"Proxy-Authorization: Basic {encoded}")
            connection.sendall("\r\n".join([*head, "", ""]).encode())
            answer = b""
            while b"\r\n\r\n" not in answer and len(answer) < MAX_HEAD:
                connection.settimeout(max(until - _CLOCK.monotonic(), MIN_SECONDS))
                part = connection.recv(1)  # what follows belongs to the server
                if not part:
                    break
                answer += part
                if _CLOCK.monotonic() > until:
                    raise TimeoutError
            connection.settimeout(seconds)
            found = _STATUS.match(answer)
            status = int(found[1]) if found else 0
            if not 200 <= status < 300:
                raise ProxyRefuses(status)
        except BaseException:
            connection.close()
            raise
        return connection


def find_proxy(environ: Mapping[str, str], host: str) -> Proxy | None:
    """Return the proxy of a connection to ``host``; None if it is direct."""
    variable = next((name for name in VARIABLES if environ.get(name)), "")
    if not variable:
        return None
    text = environ[variable]
    parts = urlsplit(text if "://" in text else f"http://{text}")
    excepted = next((environ[name] for name in EXCEPTIONS if environ.get(name)), "")
    try:
        port = parts.port or 80
    except ValueError:
        return None
    if parts.scheme != "http" or not parts.hostname or _is_excepted(host, excepted):
        return None
    credential = unquote(parts.netloc.rpartition("@")[0])
    return Proxy(variable, parts.hostname, port, credential)


def _is_excepted(host: str, excepted: str) -> bool:
    """Return whether a host ends with one of the names, or its address is in one of the networks."""
    for entry in filter(None, map(str.strip, excepted.split(","))):
        if host.lower().endswith(entry.lower()):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
