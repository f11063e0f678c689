"""The changes that lead from what a server has to what is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from lessor import values
from lessor.cli.declared import DeclaredMount, Plain
from lessor.cli.plain_messages import fill_plain
from lessor.v1 import config_pb2, role_pb2
from lessor.values import JsonValue

if TYPE_CHECKING:
    from lessor.cli.call import Call

CREATE, CHANGE, DELETE = "create", "change", "delete"
MOUNT, DEFAULTS, ROLE, STATIC_ROLE = "mount", "lease defaults", "role", "static role"
Send = Callable[["Call"], Message]


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs; None is a field without a value."""

    field: str
    before: JsonValue
    after: JsonValue

    def lines(self) -> list[str]:
        """Return it for people: on one line, or on one line for each value if it is a document."""
        if isinstance(self.before, dict | list) or isinstance(self.after, dict | list):
            sides = (("-", self.before), ("+", self.after))
            return [f"{self.field}:", *(f"  {sign} {shown(value)}" for sign, value in sides if value)]
        return [f"{self.field}: {shown(self.before)} -> {shown(self.after)}"]


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change of the server: ``send`` carries it out, ``check`` asks whether it would be refused."""

    action: str
    kind: str
    name: str
    differences: tuple[Difference, ...]
    send: Send
    check: Send | None = None

    def as_plain(self) -> Plain:
        """Return the change as JSON."""
        differences: list[JsonValue] = [
            {"field": one.field, "before": one.before, "after": one.after} for one in self.differences
        ]
        return {
            "action": self.action,
            "kind": self.kind.replace(" ", "_"),
            "name": self.name,
            "differences": differences,
        }


def shown(value: JsonValue) -> str:
    """Return a value on one line."""
    if value in (None, "", [], {}):
        return "(none)"
    if isinstance(value, dict):
        return values.policy_text(value)
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value)


def differences(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> tuple[Difference, ...]:
    """Return each field that differs."""
    names = dict.fromkeys((*before, *after))
    return tuple(
        Difference(name, before.get(name), after.get(name))
        for name in names
        if (before.get(name) or None) != (after.get(name) or None)
    )


def plan_changes(
    wanted: DeclaredMount, there: DeclaredMount | None, *, prune: bool = False
) -> Iterator[PlannedChange]:
    """Yield the changes of one engine, in the order in which they are sent.

    Without ``prune`` what is not declared stays. The engine itself is never deleted.
    """
    yield from _of_mount(wanted, there)
    known = there or DeclaredMount(wanted.name)
    if wanted.lease_defaults is not None:
        found = differences(known.lease_defaults or {}, wanted.lease_defaults)
        if found:
            request = config_pb2.SetLeaseDefaultsRequest(mount=wanted.name)
            _fill(request, wanted.lease_defaults)
            yield PlannedChange(
                CHANGE, DEFAULTS, wanted.name, found, lambda call: call(call.config.SetLeaseDefaults, request)
            )
    for name, role in wanted.roles.items():
        if found := differences(known.roles.get(name, {}), role):
            is_checkable = there is not None
            yield _put_role(wanted.name, name, role, known.etags.get(name, ""), found, checks=is_checkable)
    for name, role in wanted.static_roles.items():
        before = known.static_roles.get(name, {})
        # Only `static-role resume` releases a role.
        after = role | ({"held": True} if before.get("held") else {})
        if found := differences(before, after):
            yield _put_static_role(wanted.name, name, after, found, is_new=not before)
    if prune:
        yield from _deletions(wanted, known)


def _of_mount(wanted: DeclaredMount, there: DeclaredMount | None) -> Iterator[PlannedChange]:
    name = wanted.name
    if there is None:
        enable = config_pb2.EnableMountRequest(mount=name)
        _fill(enable, wanted.settings)
        found = differences({}, wanted.settings)
        yield PlannedChange(CREATE, MOUNT, name, found, lambda call: call(call.config.EnableMount, enable))
        return
    before = {key: there.settings.get(key) for key in wanted.settings}
    if found := differences(before, wanted.settings):
        tune = config_pb2.TuneMountRequest(mount=name)
        _fill(tune, {one.field: one.after for one in found if one.after not in (None, "")})
        tune.update_mask.paths.extend(one.field for one in found)
        yield PlannedChange(CHANGE, MOUNT, name, found, lambda call: call(call.config.TuneMount, tune))


def _put_role(
    mount: str, name: str, role: Plain, etag: str, found: tuple[Difference, ...], *, checks: bool
) -> PlannedChange:
    request = role_pb2.PutRoleRequest(mount=mount)
    _fill(request.role, role)
    request.role.name, request.role.etag = name, etag
    check = role_pb2.CheckRoleRequest(mount=mount, role=request.role)
    return PlannedChange(
        CHANGE if etag else CREATE,
        ROLE,
        f"{mount}/{name}",
        found,
        lambda call: call(call.roles.PutRole, request),
        (lambda call: call(call.roles.CheckRole, check)) if checks else None,
    )


def _put_static_role(
    mount: str, name: str, role: Plain, found: tuple[Difference, ...], *, is_new: bool
) -> PlannedChange:
    request = role_pb2.PutStaticRoleRequest(mount=mount)
    _fill(request.static_role, role)
    request.static_role.name = name
    return PlannedChange(
        CREATE if is_new else CHANGE,
        STATIC_ROLE,
        f"{mount}/{name}",
        found,
        lambda call: call(call.roles.PutStaticRole, request),
    )


def _deletions(wanted: DeclaredMount, there: DeclaredMount) -> Iterator[PlannedChange]:
    mount = wanted.name
    for name in sorted(there.roles.keys() - wanted.roles.keys()):
        role = role_pb2.DeleteRoleRequest(mount=mount, name=name)
        yield PlannedChange(DELETE, ROLE, f"{mount}/{name}", (), _send_deletion(role))
    for name in sorted(there.static_roles.keys() - wanted.static_roles.keys()):
        static = role_pb2.DeleteStaticRoleRequest(mount=mount, name=name)
        yield PlannedChange(DELETE, STATIC_ROLE, f"{mount}/{name}", (), _send_deletion(static))


def _send_deletion(request: role_pb2.DeleteRoleRequest | role_pb2.DeleteStaticRoleRequest) -> Send:
    if isinstance(request, role_pb2.DeleteRoleRequest):
        return lambda call: call(call.roles.DeleteRole, request)
    return lambda call: call(call.roles.DeleteStaticRole, request)


def _fill(message: Message, plain: Plain) -> None:
    """Fill a message from a mapping that was checked before."""
    problems: list[str] = []
    fill_plain(message, plain, "", problems)
    assert not problems, problems
