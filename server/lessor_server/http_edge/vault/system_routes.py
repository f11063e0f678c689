"""The server itself: its state, which needs no token, and what the caller may do."""

from __future__ import annotations

from typing import Final

from grpc_health.v1 import health_pb2

from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import Principal
from lessor_server.domain.errors.base import Invalid, Violation
from lessor_server.http_edge.vault.call import VaultCall
from lessor_server.http_edge.vault.reply import Reply, bad_request
from lessor_server.http_edge.vault.routes import VaultOperation, VaultRoute, Verb

CHECK: Final = "Health.Check"
MAX_PATHS: Final = 100
MAX_PATH: Final = 1_000
_CODES: Final = ("sealedcode", "uninitcode", "standbycode", "activecode")
_CAPABILITIES: Final = {
    Verb.READ: Capability.READ,
    Verb.LIST: Capability.LIST,
    Verb.WRITE: Capability.UPDATE,
    Verb.DELETE: Capability.DELETE,
}


async def read_health(call: VaultCall) -> Reply:
    """Answer 200 while the server serves, else 503; the query may name other statuses."""
    codes: dict[str, int] = {}
    for name in _CODES:
        if text := call.request.query.get(name, ""):
            if not text.isascii() or not text.isdigit() or not 200 <= int(text[:4]) <= 599:
                return bad_request(f"{name}: is not a status; send a number from 200 to 599")
            codes[name] = int(text)
    serves = await _is_serving(call)
    code = codes.get("activecode", 200) if serves else codes.get("sealedcode", 503)
    return Reply(
        status=code,
        body={
            "initialized": True,
            "sealed": not serves,
            "standby": False,
            "performance_standby": False,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": call.facts.wall_us() // 1_000_000,
            "version": call.facts.version,
            "cluster_name": "lessor",
            "cluster_id": call.facts.cluster_id,
        },
    )


async def read_seal_status(call: VaultCall) -> Reply:
    """Return what ``vault status`` shows."""
    await _is_serving(call)
    return Reply(
        body={
            "type": "shamir",
            "initialized": True,
            "sealed": False,
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "version": call.facts.version,
            "build_date": "",
            "migration": False,
            "cluster_name": "lessor",
            "cluster_id": call.facts.cluster_id,
            "recovery_seal": False,
            "storage_type": call.facts.storage,
        }
    )


async def read_leader(call: VaultCall) -> Reply:
    """Return that there is no leader: each server serves every request."""
    await _is_serving(call)
    return Reply(body={"ha_enabled": False})


async def _is_serving(call: VaultCall) -> bool:
    health = await call.ask(CHECK, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse)
    return health.status == health_pb2.HealthCheckResponse.SERVING


async def read_capabilities(call: VaultCall) -> Reply:
    """Return what the caller may do on paths, in ``data`` and beside it."""
    principal, given = await call.identify_and_read()
    paths = [path for name in ("paths", "path") for path in given.texts(name)]
    if not paths:
        raise given.invalid("paths", "is missing", "send paths, or path")
    if len(paths) > MAX_PATHS or any(len(path) > MAX_PATH for path in paths):
        problem = f"has more than {MAX_PATHS} paths, or one of more than {MAX_PATH} characters"
        raise Invalid((Violation("paths", problem, "send fewer"),))
    shape: dict[str, object] = {path: _capabilities(call, principal, path.lstrip("/")) for path in paths}
    if len(paths) == 1:
        shape["capabilities"] = shape[paths[0]]
    return Reply(shape, beside=shape, warnings=call.warnings)


def _capabilities(call: VaultCall, principal: Principal, path: str) -> list[str]:
    """Return what a caller may do on a path, in Vault's words: by its rules, and what every identity may."""
    if principal.acl is None:
        return ["root"]
    row = call.table.find(path.split("/"))
    open_to_all = row[0].open_to_all() if row is not None else ()
    found = {_CAPABILITIES[verb].value for verb in open_to_all}
    for capability in Capability:
        grant = principal.find_grant(path, capability)
        if grant is not None and grant.denies:
            return ["deny"]
        if grant is not None and capability is not Capability.DENY and grant.allows((capability,)):
            found.add(capability.value)
    return sorted(found) or ["deny"]


SYSTEM_ROUTES: Final = (
    VaultRoute(
        "sys/health",
        {Verb.READ: VaultOperation(read_health, (CHECK,), is_public=True)},
        "Whether the server serves.",
    ),
    VaultRoute(
        "sys/seal-status",
        {Verb.READ: VaultOperation(read_seal_status, (CHECK,), is_public=True)},
        "The state of the server.",
    ),
    VaultRoute(
        "sys/leader",
        {Verb.READ: VaultOperation(read_leader, (CHECK,), is_public=True)},
        "The leader: there is none.",
    ),
    VaultRoute(
        "sys/capabilities-self",
        {Verb.WRITE: VaultOperation(read_capabilities)},
        "What the caller may do on paths.",
    ),
)
