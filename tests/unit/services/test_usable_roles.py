"""Checks which roles a caller sees that may not list roles."""

from __future__ import annotations

import pytest

from lessor.v1 import role_pb2
from lessor_server.domain.access.acl import Acl, Capability, Policy, Rule, acl_of
from lessor_server.domain.access.caller import ROOT, AuthMethod, Principal
from lessor_server.domain.errors.base import Invalid
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.served import Served
from tests.support.virtual_loop import virtual

READ, UPDATE, DENY = Capability.READ, Capability.UPDATE, Capability.DENY
ROLES = ("app", "app-eu", "prod", "zeta")


def caller(**rules: Capability) -> Principal:
    """Return a caller with a capability on each path of credentials, whose ``_`` is a ``*``."""
    patterns = tuple(
        Rule(f"aws/creds/{name.replace('_', '*')}", frozenset({able})) for name, able in rules.items()
    )
    acl: Acl = acl_of([Policy("p", patterns)], lambda _: "")
    return Principal("someone", AuthMethod.TOKEN, acl)


async def put_roles(w: World) -> None:
    """Store the roles."""
    w.store.roles = {("aws", name): builders.role(name) for name in ROLES}


async def usable(w: World, principal: Principal, **fields: object) -> role_pb2.ListUsableRolesResponse:
    """Ask for the roles that a caller may use."""
    request = role_pb2.ListUsableRolesRequest(**fields)  # type: ignore[arg-type]
    (answer,) = await Served(w, principal)("RoleService.ListUsableRoles", request)
    assert isinstance(answer, role_pb2.ListUsableRolesResponse)
    return answer


@virtual
async def test_a_caller_sees_the_roles_whose_credentials_it_may_read() -> None:
    async with world() as w:
        await put_roles(w)
        for principal, expected in (
            (caller(app=READ, zeta=READ), ["app", "zeta"]),
            (caller(app_=READ, prod=UPDATE), ["app", "app-eu"]),
            (caller(_=READ, prod=DENY), ["app", "app-eu", "zeta"]),
            (caller(), []),
            (ROOT, list(ROLES)),
        ):
            found = (await usable(w, principal)).roles
            assert [role.name for role in found] == expected
            assert all(role.credential_type == role_pb2.Role.IAM_USER for role in found)


@virtual
async def test_each_page_looks_at_as_many_roles_as_are_asked_for() -> None:
    """A page may have none and not be the last."""
    async with world() as w:
        await put_roles(w)
        pages, token = [], ""
        while True:
            answer = await usable(w, caller(zeta=READ), page_size=1, page_token=token)
            pages.append([role.name for role in answer.roles])
            token = answer.next_page_token
            if not token:
                break
        assert pages == [[], [], [], ["zeta"]]


@virtual
async def test_a_mount_that_is_not_there_has_no_roles() -> None:
    """So nobody learns which mounts exist."""
    async with world() as w:
        assert list((await usable(w, caller(_=READ), mount="nomount")).roles) == []
        with pytest.raises(Invalid):
            await usable(w, ROOT, page_size=1001)
