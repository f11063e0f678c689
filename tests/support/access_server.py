"""An access file of a test, a real server that uses it, and callers with credentials of every kind."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from lessor.v1 import system_pb2
from lessor_server.adapters.clock import SystemClock
from tests.support.certificates import Authority, KeyPair
from tests.support.clients import Lessor, connect
from tests.support.json_web_tokens import SigningKey
from tests.support.server_process import ServerProcess

KEY = SigningKey("one", "P-256")
"""The key of the issuer of tests."""


def table(kind: str, **keys: object) -> str:
    """Return a table of an array in TOML, such as ``[[identities]]``, with its keys."""
    return f"[[{kind}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())


def policy(name: str, *rules: str) -> str:
    """Return a policy of rules that ``rule`` has made."""
    return table("policies", name=name) + "".join(rules)


def rule(capabilities: str, path: str, **limits: object) -> str:
    """Return a rule with capabilities such as ``read,list``."""
    return table("policies.rules", path=path, capabilities=capabilities.split(","), **limits)


def program(name: str, *policies: str, **keys: object) -> str:
    """Return an identity whose token ``token_of`` returns."""
    digest = hashlib.sha256(token_of(name).encode()).hexdigest()
    return table("identities", name=name, policies=list(policies), token_sha256=[digest], **keys)


def token_of(name: str) -> str:
    """Return the token of a program."""
    return f"the-token-of-the-program-{name}"


def jwt(issuer: str, seconds: float = 600.0, **claims: object) -> str:
    """Return a JWT of an issuer for the audience ``lessor`` that is valid for ``seconds``."""
    now = SystemClock().wall()
    return KEY.sign({"iss": issuer, "aud": "lessor", "iat": now - 1, "exp": now + seconds, **claims})


def write(file: Path, *tables: str) -> None:
    """Replace an access file as a whole."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text("\n".join(tables), encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(file)


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def secure_settings(folder: Path, server: KeyPair, client_ca: Path) -> tuple[Path, int, int]:
    """Write a settings file with TLS and two listeners; return it and the listeners' ports.

    The first listener requires client certificates, and the second asks for none.
    """
    strict, lax = free_port(), free_port()
    file = folder / "lessor.toml"
    file.write_text(
        f"""
        listen = [
            {{address = "127.0.0.1:{strict}", client_auth = "require"}},
            {{address = "127.0.0.1:{lax}", client_auth = "none"}},
        ]
        [tls]
        cert_file = "{server.cert}"
        key_file = "{server.key}"
        client_ca_file = "{client_ca}"
        """,
        encoding="utf-8",
    )
    return file, strict, lax


@asynccontextmanager
async def connect_securely(
    port: int, authority: Authority, token: str = "", pair: KeyPair | None = None
) -> AsyncIterator[Lessor]:
    """Open a channel with TLS for the duration of the block, with a token, a client certificate or both."""
    chain = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), *chain)
    async with connect(f"localhost:{port}", token, credentials) as client:
        yield client


async def who(caller: Lessor) -> system_pb2.WhoAmIResponse:
    """Ask a server who a caller is."""
    return await caller.system.WhoAmI(system_pb2.WhoAmIRequest())


async def reload(operator: Lessor) -> system_pb2.ReloadAccessResponse:
    """Have the access file read again."""
    return await operator.system.ReloadAccess(system_pb2.ReloadAccessRequest())


@asynccontextmanager
async def serving_with(
    folder: Path, file: Path, variables: Mapping[str, str] | None = None, without: Iterable[str] = ()
) -> AsyncIterator[ServerProcess]:
    """Run a server with an access file, without TLS."""
    server = ServerProcess()
    await server.start(folder, {"LESSOR_ACCESS_FILE": str(file), **(variables or {})}, without=without)
    try:
        yield server
    finally:
        await server.kill()


def _toml(value: object) -> str:
    """Return a value in TOML; a ``Verbatim`` is written as it is."""
    match value:
        case Verbatim():
            return str(value)
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


class Verbatim(str):
    """TOML that has no form in JSON, such as a time."""

    __slots__ = ()
