"""The settings of ``lessor dev``: its options override the user's variables."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lessor_server.domain.secret import Secret
from lessor_server.settings.model import LOOPBACK, Settings, load
from lessor_server.settings.parsers import Address
from lessor_server.settings.sources import Problem, SettingsError

LISTEN: Final = "LESSOR_LISTEN"
HTTP_LISTEN: Final = "LESSOR_HTTP_LISTEN"
DATA_DIR: Final = "LESSOR_DATA_DIR"
ROOT_TOKEN: Final = "LESSOR_ROOT_TOKEN"
ROOT_TOKEN_FILE: Final = "LESSOR_ROOT_TOKEN_FILE"
ALLOWED: Final = "LESSOR_AWS_ALLOWED_ENDPOINTS"
HTTP_ADDRESS: Final = Address("127.0.0.1", 8200)
"""Where Vault's clients look for a server on this machine."""
_TOKEN_BITS: Final = 192


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The options of the command line; ``None`` if absent."""

    grpc: Address | None
    aws: Address
    token: Secret | None
    data: Path | None
    http: Address | None = None


def settings_of(
    options: DevOptions, data: Path, aws_url: str, environ: Mapping[str, str]
) -> tuple[Settings, Secret]:
    """Return the settings, and the root token, of which the settings have only the hash.

    A data directory named by the user's variable is not used: it may belong to a real service, whose root
    would be replaced.

    Raises:
        SettingsError: With every problem of the user's variables.
        OSError: The token's file can't be read.
    """
    variables = {**environ, DATA_DIR: str(data), ALLOWED: _joined(environ.get(ALLOWED, ""), aws_url)}
    if options.grpc is not None or not environ.get(LISTEN):
        variables[LISTEN] = str(options.grpc or LOOPBACK)
    if options.http is not None or HTTP_LISTEN not in environ:
        variables[HTTP_LISTEN] = str(options.http or _free_address())
    if options.token is not None or not environ.keys() & {ROOT_TOKEN, ROOT_TOKEN_FILE}:
        variables.pop(ROOT_TOKEN_FILE, None)
        variables[ROOT_TOKEN] = (options.token or draw_token(random.SystemRandom())).reveal()
    settings = load(None, variables)
    _require_loopback(settings)
    if settings.root_token_file is None:
        return settings, Secret(variables[ROOT_TOKEN])
    return settings, Secret(settings.root_token_file.read_text(encoding="ascii").strip())


def _free_address() -> Address:
    """Return the usual address for HTTP, or one with a port that the system chooses if it is taken."""
    try:
        socket.create_server((HTTP_ADDRESS.host, HTTP_ADDRESS.port)).close()
    except OSError:
        return Address(HTTP_ADDRESS.host, 0)
    return HTTP_ADDRESS


def draw_token(rng: random.Random) -> Secret:
    """Return a root token of 192 random bits."""
    return Secret(f"{rng.getrandbits(_TOKEN_BITS):0{_TOKEN_BITS // 4}x}")


def _joined(given: str, url: str) -> str:
    return f"{given},{url}" if given.strip() else url


def _require_loopback(settings: Settings) -> None:
    """Refuse a listener beyond this machine, or with TLS, which our own client does not use."""
    problems = []
    addresses = [one.address for one in settings.listen]
    named = [(LISTEN, address) for address in addresses]
    if settings.http.listen is not None:
        named.append((HTTP_LISTEN, settings.http.listen.address))
    problems += [
        Problem(setting, "", f"{address} is not loopback", "write 127.0.0.1:PORT")
        for setting, address in named
        if address.path or not address.is_local
    ]
    if len(addresses) > 1:
        problems.append(Problem(LISTEN, "", "names several addresses", "write one 127.0.0.1:PORT"))
    if settings.tls is not None:
        problems.append(
            Problem("LESSOR_TLS_CERT_FILE", "", "is set", "unset it: dev serves loopback without TLS")
        )
    if problems:
        raise SettingsError(tuple(problems))
