"""What each method requires: capabilities on paths, which are Vault's where Vault has them.

``{mount}``, ``{lease_id}`` and ``{prefix}`` stand for those of the request, and other placeholders for the
name in that field. A caller without permission is refused before anything that it names is looked up.

Source: HashiCorp Vault, "Policies"; "AWS secrets engine (API)"; "/sys/leases" and "/sys/mounts".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from operator import attrgetter
from string import Formatter
from typing import Any, Final

from google.protobuf.message import Message

from lessor.v1 import config_pb2
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.rule_warnings import PathShape, Segment
from lessor_server.domain.base62 import BASE62
from lessor_server.domain.lease_id import SUFFIX_DIGITS, IdRange, LeaseId, is_name
from lessor_server.services import messages
from lessor_server.services.messages import Problems

CREATE, READ, UPDATE = Capability.CREATE, Capability.READ, Capability.UPDATE
DELETE, LIST, SUDO = Capability.DELETE, Capability.LIST, Capability.SUDO


def _always(_: Any) -> bool:  # noqa: ANN401 - a request of any kind
    return True


@dataclass(frozen=True, slots=True)
class Need:
    """Capabilities that a method needs on a path, for the requests for which ``when`` is true.

    ``instead`` is a capability that suffices alone, for less: the service looks which one the caller has.
    ``for_others``: without it, the caller may use the method on its own leases.
    """

    path: str
    capabilities: tuple[Capability, ...]
    when: Callable[[Any], bool] = _always
    instead: Capability | None = None
    for_others: bool = False
    names: str = field(init=False, compare=False, default="")
    """The capabilities, as they are written in audit records."""

    def __post_init__(self) -> None:
        """Name the capabilities."""
        object.__setattr__(self, "names", ",".join(one.value for one in self.capabilities))


def _uses_own_secrets(request: config_pb2.SetRootRequest) -> bool:
    """Return whether a root uses the server's own credentials or tokens, or sends keys to a chosen host."""
    masked = request.HasField("update_mask")
    sent = {field.name for field, _ in request.config.ListFields()}
    written = set(request.update_mask.paths) if masked else sent
    is_ambient = not request.config.access_key and (not masked or "access_key" in written)
    return is_ambient or not written.isdisjoint(_SENSITIVE)


_SENSITIVE: Final = frozenset(
    ("iam_endpoint", "sts_endpoint", "sts_fallback_endpoints", "identity_token_file")
)
_CREDS: Final = (Need("{mount}/creds/{role}", (READ,)),)
_WRITE_ROLE: Final = (Need("{mount}/roles/{role.name}", (UPDATE,), instead=CREATE),)
_SEE_LEASES: Final = (Need("sys/leases/lookup/{prefix}", (LIST,), for_others=True),)

PERMISSIONS: Final[Mapping[str, tuple[Need, ...]]] = {
    "ConfigService.EnableMount": (Need("sys/mounts/{mount}", (CREATE, SUDO)),),
    "ConfigService.DisableMount": (
        Need("sys/mounts/{mount}", (DELETE, SUDO)),
        Need("sys/leases/revoke-force/{mount}/", (UPDATE, SUDO), when=lambda request: request.force),
    ),
    "ConfigService.ListMounts": (Need("sys/mounts/", (LIST,)),),
    "ConfigService.TuneMount": (Need("sys/mounts/{mount}/tune", (UPDATE, SUDO)),),
    "ConfigService.SetRoot": (
        Need("{mount}/config/root", (UPDATE, SUDO), when=_uses_own_secrets),
        Need("{mount}/config/root", (UPDATE,)),
    ),
    "ConfigService.GetRoot": (Need("{mount}/config/root", (READ,)),),
    "ConfigService.RotateRoot": (Need("{mount}/config/rotate-root", (UPDATE,)),),
    "ConfigService.CheckRoot": (Need("{mount}/config/root", (READ,)),),
    "ConfigService.SetLeaseDefaults": (Need("{mount}/config/lease", (UPDATE,)),),
    "ConfigService.GetLeaseDefaults": (Need("{mount}/config/lease", (READ,)),),
    "RoleService.PutRole": _WRITE_ROLE,
    "RoleService.GetRole": (Need("{mount}/roles/{name}", (READ,)),),
    "RoleService.ListRoles": (Need("{mount}/roles/", (LIST,)),),
    "RoleService.DeleteRole": (
        Need("{mount}/roles/{name}", (DELETE,)),
        Need(
            "sys/leases/revoke-prefix/{mount}/creds/{name}/",
            (UPDATE, SUDO),
            when=lambda request: request.revoke_leases,
        ),
    ),
    "RoleService.CheckRole": _WRITE_ROLE,
    "RoleService.PutStaticRole": (
        Need("{mount}/static-roles/{static_role.name}", (UPDATE,), instead=CREATE),
    ),
    "RoleService.GetStaticRole": (Need("{mount}/static-roles/{name}", (READ,)),),
    "RoleService.DeleteStaticRole": (Need("{mount}/static-roles/{name}", (DELETE,)),),
    "RoleService.RotateStaticRole": (Need("{mount}/rotate-role/{name}", (UPDATE,)),),
    "RoleService.ResumeStaticRole": (Need("{mount}/static-roles/{name}", (UPDATE,)),),
    # It answers only with roles whose credentials the caller may read.
    "RoleService.ListUsableRoles": (),
    "RoleService.ListStaticRoles": (Need("{mount}/static-roles/", (LIST,)),),
    "CredsService.GenerateCredentials": _CREDS,
    "CredsService.GetStaticCredentials": (Need("{mount}/static-creds/{role}", (READ,)),),
    "CredsService.WatchCredentials": _CREDS,
    "LeaseService.LookupLease": (Need("sys/leases/lookup/{lease_id}", (READ,), for_others=True),),
    "LeaseService.ListLeases": _SEE_LEASES,
    "LeaseService.CountLeases": _SEE_LEASES,
    "LeaseService.RenewLease": (Need("sys/leases/renew/{lease_id}", (UPDATE,), for_others=True),),
    "LeaseService.RevokeLease": (Need("sys/leases/revoke/{lease_id}", (UPDATE,), for_others=True),),
    "LeaseService.RevokePrefix": (Need("sys/leases/revoke-prefix/{prefix}", (UPDATE, SUDO)),),
    "LeaseService.AbandonLeases": (
        Need(
            "sys/leases/revoke-force/{lease_id}",
            (UPDATE, SUDO),
            when=lambda request: request.lease_id or not request.prefix,
        ),
        Need("sys/leases/revoke-force/{prefix}", (UPDATE, SUDO), when=lambda request: request.prefix),
    ),
    "LeaseService.WatchLeases": _SEE_LEASES,
    "LeaseService.Reconcile": (
        Need("sys/leases/reconcile/{mount}", (READ,), when=lambda request: not request.apply),
        Need("sys/leases/reconcile/{mount}", (UPDATE, SUDO), when=lambda request: request.apply),
    ),
    "SystemService.GetInfo": (),
    "SystemService.WhoAmI": (),
    "SystemService.CreateSignInLink": (),
    "SystemService.RotateSealingKey": (Need("sys/sealing/rotate", (UPDATE, SUDO)),),
    "SystemService.Backup": (Need("sys/backup", (UPDATE, SUDO)),),
    "SystemService.HoldExpiry": (Need("sys/expiry/hold", (UPDATE, SUDO)),),
    "SystemService.ResumeExpiry": (Need("sys/expiry/resume", (UPDATE, SUDO)),),
    "SystemService.ReloadAccess": (Need("sys/access/reload", (UPDATE, SUDO)),),
}
"""Keys are ``Service.Rpc`` without the package. A method without needs may be called by every identity."""

PUBLIC: Final = frozenset(
    {"Health.Check", "Health.List", "Health.Watch", "ServerReflection.ServerReflectionInfo"}
)
"""Methods that everybody may call, without a credential."""

UNBOUNDED_STREAMS: Final = frozenset(
    {"CredsService.WatchCredentials", "LeaseService.WatchLeases", "Health.Watch"}
)
"""Unbounded streams: no default deadline ends them, but a drain ends those that need a credential."""


def path_shapes() -> list[PathShape]:
    """Return every form of a path, with each capability that a call needs on it or that suffices there."""
    needs = {need: None for some in PERMISSIONS.values() for need in some}
    return [
        PathShape(segments, capability)
        for need in needs
        for segments in _shapes(need.path.split("/"))
        for capability in (*need.capabilities, *([need.instead] if need.instead else []))
    ]


def _shapes(segments: Sequence[str]) -> Iterator[tuple[Segment, ...]]:
    """Yield the forms of a path: a prefix of lease ids has several."""
    if not segments:
        yield ()
        return
    *before, last = segments
    lease: tuple[Segment, ...] = (is_name, "creds", is_name, _begins_suffix)
    match last:
        case "{lease_id}":
            ends: list[tuple[Segment, ...]] = [lease]
        case "{prefix}":
            ends = [(is_name, ""), (is_name, "creds", ""), (is_name, "creds", is_name, ""), lease]
        case _:
            ends = [(is_name if last.startswith("{") else last,)]
    for start in _shapes(before):
        yield from ((*start, *end) for end in ends)


def _begins_suffix(text: str) -> bool:
    return len(text) <= SUFFIX_DIGITS and set(text) <= set(BASE62)


def path_of(template: str, request: Message) -> str:
    """Return a path with the names of a request, or raise ``Invalid`` with the violations of their shape."""
    return _filled(template, tuple([read(request) for _, _, read in _parts_of(template)]))


@cache
def _parts_of(template: str) -> tuple[tuple[str, str, Callable[[Message], str]], ...]:
    """Return the literals of a template, each with the field behind it and what reads that field.

    There is no field behind the last one if the template ends with it.
    """
    parts = Formatter().parse(template)
    return tuple(
        (literal, field or "", attrgetter(field) if field else _read_nothing)
        for literal, field, _, _ in parts
    )


def _read_nothing(_: Message) -> str:
    return ""


@lru_cache(maxsize=256)
def _filled(template: str, values: tuple[str, ...]) -> str:
    """Return a template with the values of its fields; most callers ask for the same path again."""
    filled = []
    with Problems() as problems:
        for (literal, field, _), value in zip(_parts_of(template), values, strict=True):
            filled += [literal, problems.parse(_named, field, value) or "" if field else ""]
    return "".join(filled)


def _named(field: str, value: str) -> str:
    """Return the name, id or prefix in a field, such as ``role.name``."""
    match field:
        case "mount":
            return messages.mount_of(value)
        case "lease_id":
            return str(LeaseId.parse(value))
        case "prefix":
            IdRange.parse(value)
            return value
        case _:
            return messages.role_of(value, field)


def mount_in(request: Message) -> str:
    """Return the mount that a request is about, empty if it is about none."""
    fields = messages.fields_of(request.DESCRIPTOR)
    for name in ("mount", "lease_id", "prefix"):
        if name in fields and (text := str(getattr(request, name)).partition("/")[0]):
            return text
    return messages.DEFAULT_MOUNT if "mount" in fields else ""
