"""Lessor as it is measured: real processes, each with a mount, a root and three roles."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tests.support.server_process import bare_environment

from bench.children import Child, child
from bench.h2load import Target
from bench.server import REAL
from lessor.v1 import (
    config_pb2,
    config_pb2_grpc,
    creds_pb2,
    creds_pb2_grpc,
    lease_pb2,
    lease_pb2_grpc,
    role_pb2,
    role_pb2_grpc,
    system_pb2,
)

MOUNT: Final = "aws"
BARE, PLAIN, RICH = "bare", "plain", "rich"
"""Roles whose credentials take two calls, three, and eight."""
RULES = 50
TOKEN, CALLER_TOKEN = "the-root-token-of-a-benchmark", "the-token-of-a-caller-with-many-rules"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}'
_ARNS = [f"arn:aws:iam::aws:policy/{name}" for name in ("ReadOnlyAccess", "Billing", "Support")]
_ROLES: dict[str, dict[str, object]] = {
    BARE: {},
    PLAIN: {},
    RICH: {
        "policy_arns": _ARNS,
        "iam_groups": ["bench-readers", "bench-writers"],
        "iam_tags": {"team": "bench"},
    },
}
_MAX_USERS = 10_000_000
_METADATA = (("authorization", f"Bearer {TOKEN}"),)
_START_SECONDS, _STOP_SECONDS, _CALL_SECONDS = 60.0, 60.0, 60.0


@dataclass(frozen=True, slots=True)
class Lessor:
    """A running server; ``start_seconds`` is the time from its start until it served."""

    child: Child
    address: str
    start_seconds: float
    http_url: str = ""

    def credential_over_http(self, role: str) -> Target:
        """Return the request for one credential by Vault's API."""
        return Target(f"{self.http_url}/v1/{MOUNT}/creds/{role}", (("x-vault-token", TOKEN),))

    def credential(self, role: str, token: str = TOKEN) -> Target:
        """Return the request for one credential."""
        asked = creds_pb2.GenerateCredentialsRequest(role=role)
        return self._target("CredsService/GenerateCredentials", asked, token)

    def empty(self) -> Target:
        """Return the cheapest request of an identified caller."""
        return self._target("SystemService/WhoAmI", system_pb2.WhoAmIRequest())

    def lookup(self, lease_id: str) -> Target:
        """Return the request that looks a lease up."""
        return self._target("LeaseService/LookupLease", lease_pb2.LookupLeaseRequest(lease_id=lease_id))

    def renew(self, lease_id: str) -> Target:
        """Return the request that renews a lease by its whole ttl."""
        return self._target("LeaseService/RenewLease", lease_pb2.RenewLeaseRequest(lease_id=lease_id))

    def issue_one(self, role: str) -> str:
        """Issue a credential and return the id of its lease."""
        with grpc.insecure_channel(self.address) as channel:
            generate = creds_pb2_grpc.CredsServiceStub(channel).GenerateCredentials
            asked = creds_pb2.GenerateCredentialsRequest(role=role)
            return str(generate(asked, metadata=_METADATA, timeout=_CALL_SECONDS).lease_id)

    def leases(self) -> int:
        """Count the leases that are ACTIVE."""
        with grpc.insecure_channel(self.address) as channel:
            every = lease_pb2.CountLeasesRequest(prefix=f"{MOUNT}/", state=lease_pb2.Lease.ACTIVE)
            answer = lease_pb2_grpc.LeaseServiceStub(channel).CountLeases(
                every, metadata=_METADATA, timeout=_CALL_SECONDS
            )
        return sum(counted.count for counted in answer.counts)

    def revoke_all(self, role: str) -> float:
        """Order the revocation of a role's leases; return the seconds until that was accepted."""
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(_CALL_SECONDS)
            start = time.perf_counter()
            order = lease_pb2.RevokePrefixRequest(prefix=f"{MOUNT}/creds/{role}/")
            answers = lease_pb2_grpc.LeaseServiceStub(channel).RevokePrefix(
                order, metadata=_METADATA, timeout=_CALL_SECONDS
            )
            next(answers)
            seconds = time.perf_counter() - start
            for _ in answers:
                pass
        return seconds

    def _target(self, method: str, message: Message, token: str = TOKEN) -> Target:
        return Target.of_grpc(self.address, f"lessor.v1.{method}", token, message.SerializeToString())

    def stop(self) -> None:
        """Let the server drain and end."""
        self.child.process.send_signal(signal.SIGTERM)
        self.child.process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        self.child.process.kill()
        self.child.process.wait(_STOP_SECONDS)


def environment(data: Path, backend: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a server on ``data`` whose AWS is ``backend``."""
    return {
        **bare_environment(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "LESSOR_AWS_ALLOWED_ENDPOINTS": backend,
        "LESSOR_AWS_RATE": "100000",  # AWS's own rate is not what is measured
        "LESSOR_DATA_DIR": str(data),
        "LESSOR_LISTEN": "127.0.0.1:0",
        "LESSOR_HTTP_LISTEN": "127.0.0.1:0",
        "LESSOR_LOG_FORMAT": "json",
        "LESSOR_ROOT_TOKEN": TOKEN,
        **(more or {}),
    }


@contextmanager
def lessor(env: Mapping[str, str], log: Path, parts: str = REAL) -> Iterator[Lessor]:
    """Run a server of ``bench.server`` on a free port for the length of the block."""
    log.unlink(missing_ok=True)
    start = time.perf_counter()
    with child("bench.server", parts, env=env, log=log) as one:
        address, http_url = _addresses(one)
        yield Lessor(one, address, time.perf_counter() - start, http_url)


def prepare(server: Lessor, backend: str) -> None:
    """Enable a mount with a root and the roles, and issue one credential, so that its account is known."""
    with grpc.insecure_channel(server.address) as channel:
        config = config_pb2_grpc.ConfigServiceStub(channel)
        mount = config_pb2.EnableMountRequest(mount=MOUNT, max_users=_MAX_USERS)
        config.EnableMount(mount, metadata=_METADATA, timeout=_CALL_SECONDS)
        root = config_pb2.RootConfig(
            access_key="AKIABENCHROOTEXAMPLE", secret_key="none", iam_endpoint=backend, sts_endpoint=backend
        )
        config.SetRoot(config_pb2.SetRootRequest(config=root), metadata=_METADATA, timeout=_CALL_SECONDS)
        roles = role_pb2_grpc.RoleServiceStub(channel)
        for name, more in _ROLES.items():
            role = ParseDict({"name": name, "credential_type": "IAM_USER", **more}, role_pb2.Role())
            if name != BARE:
                role.policy_document.update(json.loads(POLICY))
            roles.PutRole(role_pb2.PutRoleRequest(role=role), metadata=_METADATA, timeout=_CALL_SECONDS)
    server.issue_one(BARE)


def access_file(path: Path) -> Path:
    """Write an access file with one caller; of its rules, the one that admits it is compared last."""
    digest = hashlib.sha256(CALLER_TOKEN.encode()).hexdigest()
    patterns = [f"{MOUNT}/creds/other-{number}-*" for number in range(RULES - 1)] + [f"{MOUNT}/+/+"]
    rules = [f'{{path = "{pattern}", capabilities = ["read"], max_ttl = "24h"}}' for pattern in patterns]
    path.write_text(
        f'[[policies]]\nname = "bench"\nrules = [{", ".join(rules)}]\n'
        f'[[identities]]\nname = "bench"\npolicies = ["bench"]\ntoken_sha256 = ["{digest}"]\n',
        encoding="utf-8",
    )
    return path


def _addresses(server: Child) -> tuple[str, str]:
    """Wait until the log says where the server listens."""
    until = time.perf_counter() + _START_SECONDS
    while time.perf_counter() < until and server.process.poll() is None:
        for line in server.log.read_text(encoding="utf-8").splitlines():
            if '"event": "serving"' in line:
                served = json.loads(line)
                return str(served["address"]), str(served["http"])
        time.sleep(0.005)
    raise server.ended()
