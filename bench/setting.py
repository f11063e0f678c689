"""What stands ready for a measurement: the processes, and on each server a mount, a root and two roles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from google.protobuf.json_format import ParseDict
from tests.support.server_process import bare_environment
from tests.support.standin_control import ask, run_server

from bench.children import Child, child, lessor_server
from bench.load import CALLER_TOKEN
from bench.plain import POLICY
from bench.server import NO_SDK, NO_STORE, REAL
from lessor.v1 import config_pb2, config_pb2_grpc, lease_pb2, lease_pb2_grpc, role_pb2, role_pb2_grpc

FEW, MANY = f"{REAL}-few", f"{REAL}-many"
"""Two servers of one kind, told apart by how many leases they hold."""

PLAIN_ROLE, RICH_ROLE = "plain", "rich"
_GROUPS = ["bench-readers", "bench-writers"]
_RICH = {
    "policy_arns": [f"arn:aws:iam::aws:policy/{name}" for name in ("ReadOnlyAccess", "Billing", "Support")],
    "iam_groups": _GROUPS,
    "iam_tags": {"team": "bench", "stage": "test"},
}
_TOKEN = "the-root-token-of-a-benchmark"
_METADATA = (("authorization", f"Bearer {_TOKEN}"),)
RULES = 50
_CALLER_TOKEN = "the-token-of-a-caller-with-many-rules"
_MAX_USERS = 1_000_000
_ENV = {
    "LESSOR_ROOT_TOKEN": _TOKEN,
    CALLER_TOKEN: _CALLER_TOKEN,
    "LESSOR_AWS_RATE": "100000",  # AWS's own rate is not what is measured
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that runs; ``servers`` are processes and addresses by variant."""

    aws: str
    servers: dict[str, tuple[Child, str]]
    load: Child
    plain: Child

    def revoke_one(self) -> None:
        """Revoke some plain lease of the server with few leases and wait until it is gone."""
        with _leases(self.servers[FEW][1]) as stub:
            any_one = lease_pb2.ListLeasesRequest(page_size=1, prefix=f"aws/creds/{PLAIN_ROLE}/")
            lease_id = stub.ListLeases(any_one, metadata=_METADATA, timeout=30).leases[0].lease_id
            order = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=True)
            answer = stub.RevokeLease(order, metadata=_METADATA, timeout=30)
        assert answer.outcome == lease_pb2.RevokeLeaseResponse.GONE, answer

    def leases(self, variant: str) -> int:
        """Count the live leases of a server."""
        with _leases(self.servers[variant][1]) as stub:
            every = lease_pb2.CountLeasesRequest(prefix="aws/")
            answer = stub.CountLeases(every, metadata=_METADATA, timeout=30)
        return sum(counted.count for counted in answer.counts)


@contextmanager
def standing() -> Iterator[Setting]:
    """Start every process, set the servers up, and end all of it with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="lessor-bench-")))
        aws = stack.enter_context(run_server())
        ask(aws, "POST", "account", {"max_users": _MAX_USERS})
        ask(aws, "POST", "groups", {"names": _GROUPS})
        env = {**bare_environment(), **_ENV, "LESSOR_AWS_ALLOWED_ENDPOINTS": aws}
        access = folder / "access.toml"
        access.write_text(_access_file(), encoding="utf-8")
        ruled = {**env, "LESSOR_ACCESS_FILE": str(access)}
        servers = {
            variant: stack.enter_context(lessor_server(variant, folder, ruled))
            for variant in (FEW, MANY, NO_SDK, NO_STORE)
        }
        for _, address in servers.values():
            _prepare(address, aws)
        load = stack.enter_context(child("bench.load", env=env, log=folder / "load.log"))
        plain = stack.enter_context(child("bench.plain", aws, env=env, log=folder / "plain.log"))
        yield Setting(aws, servers, load, plain)


def _access_file() -> str:
    """Return an access file with one caller; of its rules, the one that admits it is compared last."""
    digest = hashlib.sha256(_CALLER_TOKEN.encode()).hexdigest()
    patterns = [f"aws/creds/other-{number}-*" for number in range(RULES - 1)] + ["aws/+/+"]
    rules = [f'{{path = "{pattern}", capabilities = ["read"], max_ttl = "24h"}}' for pattern in patterns]
    return (
        f'[[policies]]\nname = "bench"\nrules = [{", ".join(rules)}]\n'
        f'[[identities]]\nname = "bench"\npolicies = ["bench"]\ntoken_sha256 = ["{digest}"]\n'
    )


@contextmanager
def _leases(address: str) -> Iterator[lease_pb2_grpc.LeaseServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield lease_pb2_grpc.LeaseServiceStub(channel)


def _prepare(address: str, aws: str) -> None:
    """Enable a mount with a root and two roles: one inline policy, and one of everything."""
    with grpc.insecure_channel(address) as channel:
        config = config_pb2_grpc.ConfigServiceStub(channel)
        config.EnableMount(
            config_pb2.EnableMountRequest(max_users=_MAX_USERS), metadata=_METADATA, timeout=30
        )
        root = config_pb2.RootConfig(
            access_key="AKIABENCHROOTEXAMPLE", secret_key="none", iam_endpoint=aws, sts_endpoint=aws
        )
        config.SetRoot(config_pb2.SetRootRequest(config=root), metadata=_METADATA, timeout=30)
        roles = role_pb2_grpc.RoleServiceStub(channel)
        for name, more in ((PLAIN_ROLE, {}), (RICH_ROLE, _RICH)):
            role = ParseDict({"name": name, "credential_type": "IAM_USER", **more}, role_pb2.Role())
            role.policy_document.update(json.loads(POLICY))
            roles.PutRole(role_pb2.PutRoleRequest(role=role), metadata=_METADATA, timeout=30)
