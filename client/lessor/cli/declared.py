"""What a file of ``lessor apply`` declares, and what a server has: engines, roles and static roles.

    mounts:
      aws:
        max_lease_ttl: 24h
        lease_defaults: {lease: 1h, lease_max: 24h}
        roles:
          reader:
            credential_type: IAM_USER
            policy_arns: [arn:aws:iam::aws:policy/ReadOnlyAccess]
        static_roles:
          reporter: {username: reporter, rotation_period: 7d}

Roots are not part of it, because they have secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import Message

from lessor.cli.plain_messages import fill_plain, plain_of
from lessor.v1 import config_pb2, role_pb2
from lessor.values import JsonValue

if TYPE_CHECKING:
    from lessor.cli.call import Call

Plain = dict[str, JsonValue]
M = TypeVar("M", bound=Message)

NOT_OF_MOUNT: Final = ("mount", "state", "create_time")
NOT_OF_DEFAULTS: Final = ("mount",)
NOT_OF_ROLE: Final = ("name", "etag")
NOT_OF_STATIC_ROLE: Final = ("name", "access_key", "next_rotation_time")
DEFAULT_LIVE_KEYS: Final = 2
"""What the server stores for a static role that names no number."""
_PARTS: Final = ("lease_defaults", "roles", "static_roles")


@dataclass(frozen=True, slots=True)
class DeclaredMount:
    """An engine: of its settings and lease defaults only what is declared, of its roles every field.

    ``etags`` has those of a server's roles.
    """

    name: str
    settings: Plain = field(default_factory=dict)
    lease_defaults: Plain | None = None
    roles: Mapping[str, Plain] = field(default_factory=dict)
    static_roles: Mapping[str, Plain] = field(default_factory=dict)
    etags: Mapping[str, str] = field(default_factory=dict)

    def as_plain(self) -> Plain:
        """Return it as it is written in a file."""
        found: Plain = dict(self.settings)
        if self.lease_defaults:
            found["lease_defaults"] = self.lease_defaults
        found |= {"roles": dict(self.roles)} if self.roles else {}
        return found | ({"static_roles": dict(self.static_roles)} if self.static_roles else {})


def parse_declared(content: JsonValue, problems: list[str]) -> list[DeclaredMount]:
    """Return the engines of a parsed file, and add what is wrong with it to ``problems``."""
    if not isinstance(content, dict) or not isinstance(content.get("mounts"), dict):
        problems.append("the file is not a mapping with the key `mounts`; `lessor export` writes one")
        return []
    problems.extend(
        f"{key}: is not a known key; the only one is `mounts`" for key in content if key != "mounts"
    )
    return [_mount(str(name), plain, problems) for name, plain in _items(content, "mounts", "", problems)]


def _items(
    plain: Mapping[str, JsonValue], key: str, path: str, problems: list[str]
) -> Iterable[tuple[str, JsonValue]]:
    """Return the members of a mapping that is itself a member of ``plain``; none if it is absent or empty."""
    members = plain.get(key)
    if members is not None and not isinstance(members, dict):
        problems.append(f"{path}{key}: is not a mapping; write one name a line below it")
        return ()
    return (members or {}).items()


def _mount(name: str, plain: JsonValue, problems: list[str]) -> DeclaredMount:
    path = f"mounts.{name}"
    given = {} if plain is None else plain
    if not isinstance(given, dict):
        problems.append(f"{path}: is not a mapping; write its settings and roles below it")
        return DeclaredMount(name)
    settings = {key: value for key, value in given.items() if key not in _PARTS}
    mount = config_pb2.Mount()
    fill_plain(mount, settings, path, problems, NOT_OF_MOUNT)
    known = plain_of(mount)
    defaults = given.get("lease_defaults")
    return DeclaredMount(
        name,
        # What is cleared is also declared.
        {key: known.get(key, "") for key in settings if key in mount.DESCRIPTOR.fields_by_name},
        None if defaults is None else _defaults(defaults, f"{path}.lease_defaults", problems),
        {
            role: normal_role(_written(role_pb2.Role(), one, f"{path}.roles.{role}", problems, NOT_OF_ROLE))
            for role, one in _items(given, "roles", f"{path}.", problems)
        },
        {
            role: normal_static_role(
                _written(
                    role_pb2.StaticRole(), one, f"{path}.static_roles.{role}", problems, NOT_OF_STATIC_ROLE
                )
            )
            for role, one in _items(given, "static_roles", f"{path}.", problems)
        },
    )


def _defaults(plain: JsonValue, path: str, problems: list[str]) -> Plain:
    return plain_of(_written(config_pb2.SetLeaseDefaultsRequest(), plain, path, problems, NOT_OF_DEFAULTS))


def _written(message: M, plain: JsonValue, path: str, problems: list[str], leave_out: Iterable[str]) -> M:
    fill_plain(message, plain, path, problems, leave_out)
    return message


def normal_role(role: role_pb2.Role) -> Plain:
    """Return a role as it is compared and written."""
    return plain_of(role, NOT_OF_ROLE)


def normal_static_role(role: role_pb2.StaticRole) -> Plain:
    """Return a static role as it is compared and written, without the default number of keys."""
    plain = plain_of(role, NOT_OF_STATIC_ROLE)
    return {key: value for key, value in plain.items() if (key, value) != ("live_keys", DEFAULT_LIVE_KEYS)}


def load_mounts(call: Call) -> dict[str, config_pb2.Mount]:
    """Return the server's engines by name."""
    answer = call.all(call.config.ListMounts, config_pb2.ListMountsRequest(page_size=1000))
    return {one.mount: one for one in answer.mounts}


def load_declared(call: Call, mount: config_pb2.Mount) -> DeclaredMount:
    """Return one of the server's engines with its roles."""
    name = mount.mount
    defaults = call(call.config.GetLeaseDefaults, config_pb2.GetLeaseDefaultsRequest(mount=name))
    # A role can have several KiB: a page of 100 stays well below the maximum size of a message.
    roles = call.all(call.roles.ListRoles, role_pb2.ListRolesRequest(mount=name, page_size=100)).roles
    static = call.all(
        call.roles.ListStaticRoles, role_pb2.ListStaticRolesRequest(mount=name, page_size=1000)
    ).static_roles
    return DeclaredMount(
        name,
        plain_of(mount, NOT_OF_MOUNT),
        plain_of(defaults, NOT_OF_DEFAULTS),
        {one.name: normal_role(one) for one in roles},
        {one.name: normal_static_role(one) for one in static},
        {one.name: one.etag for one in roles},
    )
