"""Checks that lists are paged, ordered and stable during writes, and that counts agree with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain

import grpc
import pytest

from lessor.v1 import config_pb2, lease_pb2, role_pb2
from tests.support.clients import Lessor, refused, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State = lease_pb2.Lease.State
Code = grpc.StatusCode
NOBODY = "0" * 24


async def leases(
    lessor: Lessor, prefix: str, size: int, state: State.ValueType | None = None
) -> list[list[str]]:
    """Read a whole list, page by page; return the ids of each page."""
    pages, token = [], ""
    while True:
        request = lease_pb2.ListLeasesRequest(prefix=prefix, state=state, page_size=size, page_token=token)
        answer = await lessor.leases.ListLeases(request)
        pages.append([lease.lease_id for lease in answer.leases])
        token = answer.next_page_token
        if not token:
            return pages


async def counts(lessor: Lessor, prefix: str) -> dict[tuple[str, int], int]:
    """Count leases by role and state."""
    answer = await lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix=prefix))
    return {(counted.role, counted.state): counted.count for counted in answer.counts}


async def issue(lessor: Lessor, mount: str, role: str, number: int) -> list[str]:
    """Issue so many leases in parallel and return their ids in order."""
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(lessor.generate(mount, role)) for _ in range(number)]
    return sorted(task.result().lease_id for task in made)


async def test_leases_come_in_pages_by_id(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await issue(lessor, mount, "app", 7)
    pages = await leases(lessor, f"{mount}/", 3)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert list(chain(*pages)) == made


async def test_a_full_last_page_has_no_next(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await issue(lessor, mount, "app", 4)
    assert await leases(lessor, f"{mount}/", 2) == [made[:2], made[2:]]


async def test_pages_are_stable_during_writes(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await issue(lessor, mount, "app", 6)
    request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/", page_size=2)
    first = await lessor.leases.ListLeases(request)
    await lessor.revoke(made[0])
    added = (await lessor.generate(mount)).lease_id
    seen = [lease.lease_id for lease in first.leases]
    request.page_token = first.next_page_token
    while request.page_token:
        answer = await lessor.leases.ListLeases(request)
        seen += [lease.lease_id for lease in answer.leases]
        request.page_token = answer.next_page_token
    assert seen == sorted(set(seen))
    assert set(made) <= set(seen) <= {*made, added}


async def test_a_prefix_is_a_mount_a_role_or_a_lease(lessor: Lessor, mount: str) -> None:
    for role in ("app", "app_", "apple"):
        await lessor.put_role(mount, role)
    ids = {role: await issue(lessor, mount, role, 2) for role in ("app", "app_", "apple")}
    everything = sorted(chain(*ids.values()))
    assert await leases(lessor, f"{mount}/", 0) == [everything]
    assert await leases(lessor, f"{mount}/creds/", 0) == [everything]
    for role, made in ids.items():
        assert await leases(lessor, f"{mount}/creds/{role}/", 0) == [made]
        assert await leases(lessor, made[0], 0) == [made[:1]]
        assert await counts(lessor, f"{mount}/creds/{role}/") == {(role, State.ACTIVE): 2}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/",
        "aws",
        "aws/x",
        "aws//",
        "aws/creds",
        "aws/creds/app",
        "%/",
        "aws/creds/%/",
        "../",
        "aws/creds/app/x",
    ],
)
async def test_any_other_prefix_is_refused(lessor: Lessor, prefix: str) -> None:
    for call in (
        lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix=prefix)),
        lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix=prefix)),
    ):
        refusal = await refused(call)
        assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, ["prefix"])


async def test_leases_are_found_by_the_state_that_callers_see(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await issue(lessor, mount, "app", 5)
    for lease_id in made[:2]:
        await lessor.revoke(lease_id)
    assert await leases(lessor, f"{mount}/", 0, State.GONE) == [made[:2]]
    assert await leases(lessor, f"{mount}/", 2, State.ACTIVE) == [made[2:4], made[4:]]
    assert await leases(lessor, f"{mount}/", 0, State.INTENT) == [[]]
    assert await counts(lessor, f"{mount}/") == {("app", State.ACTIVE): 3, ("app", State.GONE): 2}


@pytest.mark.parametrize("state", [0, 99])
async def test_an_unknown_state_is_refused(lessor: Lessor, mount: str, state: int) -> None:
    for call in (
        lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix=f"{mount}/", state=state)),  # type: ignore[arg-type]
        lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix=f"{mount}/", state=state)),  # type: ignore[arg-type]
    ):
        assert list((await refused(call)).violations) == ["state"]


@pytest.mark.slow
async def test_counts_follow_every_step(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    await issue(lessor, mount, "app", 2)
    assert await counts(lessor, f"{mount}/") == {("app", State.ACTIVE): 2}
    short = await lessor.generate(mount, ttl=1)
    await until(lambda: lessor.lookup(short.lease_id), lambda lease: lease.state == State.GONE)
    assert await counts(lessor, f"{mount}/") == {("app", State.ACTIVE): 2, ("app", State.GONE): 1}


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_size_out_of_bounds_is_refused(lessor: Lessor, mount: str, size: int) -> None:
    for call in (
        lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix=f"{mount}/", page_size=size)),
        lessor.roles.ListRoles(role_pb2.ListRolesRequest(mount=mount, page_size=size)),
        lessor.config.ListMounts(config_pb2.ListMountsRequest(page_size=size)),
    ):
        assert list((await refused(call)).violations) == ["page_size"]


async def test_an_invalid_page_token_is_refused(lessor: Lessor, mount: str) -> None:
    request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/", page_token="nonsense")
    assert list((await refused(lessor.leases.ListLeases(request))).violations) == ["page_token"]


async def test_roles_come_in_stable_pages_by_name(lessor: Lessor, mount: str) -> None:
    names = [f"role{number:02}" for number in range(7)]
    for name in reversed(names):
        await lessor.put_role(mount, name)
    seen: list[str] = []
    request = role_pb2.ListRolesRequest(mount=mount, page_size=3)
    while True:
        answer = await lessor.roles.ListRoles(request)
        seen += [role.name for role in answer.roles]
        assert all(role.HasField("policy_document") and role.etag for role in answer.roles)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        await lessor.put_role(mount, "a-new-one")
    assert seen == names


async def test_mounts_come_in_pages_by_name(lessor: Lessor, mount: str) -> None:
    for name in ("zeta", "alpha", "mid.dle"):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest(mount=name))
    whole = await lessor.config.ListMounts(config_pb2.ListMountsRequest())
    names = [one.mount for one in whole.mounts]
    assert {"zeta", "alpha", "mid.dle", mount} <= set(names)
    assert names == sorted(names)
    request, paged = config_pb2.ListMountsRequest(page_size=2), Counter[str]()
    while True:
        answer = await lessor.config.ListMounts(request)
        paged.update(one.mount for one in answer.mounts)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert paged == Counter(names)


async def test_a_list_and_a_count_are_of_one_owner(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await issue(lessor, mount, "app", 2)
    for owner, found in (("root", made), ("", made), ("nobody", []), ("roo", []), ("%", [])):
        listed = await lessor.leases.ListLeases(
            lease_pb2.ListLeasesRequest(prefix=f"{mount}/", owner=owner, page_size=5)
        )
        assert [lease.lease_id for lease in listed.leases] == found
        assert {(lease.owner, lease.policy_rule) for lease in listed.leases} <= {("root", "")}
        counted = await lessor.leases.CountLeases(
            lease_pb2.CountLeasesRequest(prefix=f"{mount}/", owner=owner)
        )
        assert sum(one.count for one in counted.counts) == len(found)
    for token in ("", made[0]):
        request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/", owner="root", page_size=1, page_token=token)
        (lease,) = (await lessor.leases.ListLeases(request)).leases
        assert lease.lease_id == (made[1] if token else made[0])


@pytest.mark.parametrize("owner", ["x" * 257, "a\nb"])
async def test_an_owner_that_nobody_can_be_is_refused(lessor: Lessor, mount: str, owner: str) -> None:
    async def first() -> None:
        request = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", owner=owner)
        await anext(aiter(lessor.leases.RevokePrefix(request)))

    for call in (
        lessor.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix=f"{mount}/", owner=owner)),
        lessor.leases.CountLeases(lease_pb2.CountLeasesRequest(prefix=f"{mount}/", owner=owner)),
        first(),
    ):
        refusal = await refused(call)
        assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, ["owner"])
