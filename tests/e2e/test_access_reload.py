"""Checks that an access file is replaced whole or not at all, also while calls and streams are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from lessor.v1 import config_pb2, lease_pb2, role_pb2
from lessor.v1.creds_pb2 import WatchCredentialsRequest
from tests.support.access_server import policy, program, reload, rule, serving_with, token_of, who, write
from tests.support.clients import Lessor, Refusal, connect, nothing_left, refused, until
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
ADMIN = (policy("admin", rule("update,sudo", "sys/access/reload")), program("admin", "admin"))
READER = rule("read", "+/creds/app")
VERSIONS = {
    "left": (rule("read", "left/config/lease"), rule("delete", "aws/roles/none")),
    "right": (
        rule("read", "right/config/lease"),
        rule("update,sudo", "sys/leases/revoke-prefix/aws/creds/none/"),
    ),
}
"""Two versions of a policy: each admits one of two mounts, and one of the two needs of one call."""
CALLS_A_VERSION, RELOADS = 25, 30


@dataclass(frozen=True, slots=True)
class Running:
    """A server, its access file, and its operator, who may reload it."""

    process: ServerProcess
    file: Path
    admin: Lessor

    async def use(self, *tables: str) -> int:
        """Let the server use a file with these tables; return the number of leases without an owner."""
        write(self.file, *ADMIN, *tables)
        return (await reload(self.admin)).orphaned_leases

    @asynccontextmanager
    async def caller(self, name: str) -> AsyncIterator[Lessor]:
        """Connect as a program."""
        async with connect(self.process.address, token_of(name)) as client:
            yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[ServerProcess]:
    """Run the server of this module."""
    folder = tmp_path_factory.mktemp("reload")
    write(folder / "access.toml", *ADMIN)
    variables = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    async with serving_with(folder, folder / "access.toml", variables) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(server: ServerProcess) -> AsyncIterator[Running]:
    """Connect as the operator."""
    async with connect(server.address, token_of("admin")) as admin:
        yield Running(server, server.data_dir.parent / "access.toml", admin)


def version(name: str) -> tuple[str, ...]:
    """Return the tables of one of ``VERSIONS``, in which the caller has a policy and a label of that name."""
    return policy(name, *VERSIONS[name]), program("app", name, labels={"version": name})


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """Return the status of a call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def defaults(caller: Lessor, mount: str) -> Awaitable[object]:
    """Read the lease defaults of a mount, which does not exist."""
    return caller.config.GetLeaseDefaults(config_pb2.GetLeaseDefaultsRequest(mount=mount))


async def sweep(caller: Lessor, ended: asyncio.Event, seen: dict[str, int]) -> None:
    """Make calls that only a mixture of both versions would admit, and check that each is of one version."""
    both = role_pb2.DeleteRoleRequest(mount="aws", name="none", revoke_leases=True)
    while not ended.is_set():
        refusal = await refused(caller.roles.DeleteRole(both))
        assert refusal.code is DENIED, "decided by half of each file"
        left = refusal.message.startswith("this needs update and sudo on sys/leases/revoke-prefix/")
        assert left or refusal.message.startswith("this needs delete on aws/roles/none")
        answer = await who(caller)
        assert [answer.labels["version"]] == list(answer.policies)
        seen["left" if left else "right"] += 1


async def test_no_call_is_decided_by_half_a_file_while_it_is_reloaded(running: Running) -> None:
    """Calls that begin after a reload has answered are decided by the new file, and by nothing else."""
    await running.use(*version("left"))
    ended, seen = asyncio.Event(), {"left": 0, "right": 0}
    async with running.caller("app") as app, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(sweep(app, ended, seen))
        for count in range(RELOADS):
            now, other = ("right", "left") if count % 2 else ("left", "right")
            if count % 3:
                await running.use(*version(now))
            else:  # by a signal, whose end nobody answers
                write(running.file, *ADMIN, *version(now))
                running.process.hang_up()
                await until(lambda: who(app), lambda answer, now=now: list(answer.policies) == [now])
            calls = [code_of(defaults(app, mount)) for mount in (now, other) * CALLS_A_VERSION]
            codes = await asyncio.gather(*calls)
            assert set(codes[::2]) == {grpc.StatusCode.NOT_FOUND}
            assert set(codes[1::2]) == {DENIED}
        ended.set()
    assert min(seen.values()) > 50


BROKEN = {
    "a word that is no TOML": (("no toml",), ("access.toml",)),
    "several errors": (
        (
            policy("p", rule("read,reed", "a*b", max_ttl="-1s")),
            program("x", "unknown", colour="red"),
            '[[identities]]\nname = "root"\ntoken_sha256 = ["00"]\n',
        ),
        (
            "policies[1](p).rules[0].path",
            "policies[1](p).rules[0].max_ttl",
            "reed",
            "colour",
            "unknown",
            "root",
        ),
    ),
    "one policy less": ((program("x", "gone"),), ("identities[1](x).policies[0]",)),
}


@pytest.mark.parametrize("why", BROKEN)
async def test_a_broken_file_keeps_the_old_rules_and_lists_all_its_errors(running: Running, why: str) -> None:
    tables, named = BROKEN[why]
    await running.use(*version("left"))
    time = (await running.admin.info()).access_file_time
    async with running.caller("app") as app:
        refusal = await refused(running.use(*tables))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCESS_FILE_INVALID")
        assert [one for one in named if one not in refusal.message] == []
        info = await running.admin.info()
        [warning] = [text for text in info.warnings if "access file" in text]
        assert [one for one in named if one not in warning] == []
        assert info.access_file_time == time
        assert list((await who(app)).policies) == ["left"]
        running.process.hang_up()
        await until(lambda: failures(running), lambda count: count > 0)
        assert list((await who(app)).policies) == ["left"]
    await running.use(*version("left"))
    info = await running.admin.info()
    assert not [text for text in info.warnings if "access file" in text]
    assert info.access_file_time.ToNanoseconds() > time.ToNanoseconds()


async def failures(running: Running) -> int:
    """Count the reloads of the access file that the log reports as failed."""
    return [line.get("what") for line in running.process.log() if line["event"] == "reload_failed"].count(
        "access file"
    )


@pytest.mark.parametrize("how", ["removed", "writable by all", "a folder"])
async def test_a_file_that_cannot_be_used_keeps_the_old_rules(running: Running, how: str) -> None:
    await running.use(*version("right"))
    text = running.file.read_text(encoding="utf-8")
    if how == "writable by all":
        running.file.chmod(0o666)
    else:
        running.file.unlink()
    if how == "a folder":
        running.file.mkdir()
    try:
        refusal = await refused(reload(running.admin))
        assert refusal.reason == "ACCESS_FILE_INVALID"
        async with running.caller("app") as app:
            assert list((await who(app)).policies) == ["right"]
    finally:
        if how == "a folder":
            running.file.rmdir()
        write(running.file, text)
        await reload(running.admin)


async def test_only_who_has_the_right_may_reload(running: Running) -> None:
    await running.use(*version("left"))
    async with running.caller("app") as app:
        assert (await refused(reload(app))).message.startswith(
            "this needs update and sudo on sys/access/reload"
        )


# --- streams ---------------------------------------------------------------------------------------------


async def end_of(stream: AsyncIterator[object]) -> Refusal:
    """Wait for the error that ends a stream; skip its messages."""

    async def skip() -> None:
        async for _ in stream:
            pass

    async with asyncio.timeout(30):
        return await refused(skip())


LISTER = rule("list", "sys/leases/lookup/+/")


@pytest.mark.parametrize(
    "change", ["no read", "no list", "no identity", "another token", "elsewhere", "deny"]
)
async def test_a_reload_ends_the_streams_that_it_no_longer_allows(
    running: Running, lessor: Lessor, mount: str, aws: StandIn, change: str
) -> None:
    """The streams of another caller go on, and the credential of an ended stream is revoked."""
    await lessor.put_role(mount)
    both = policy("app", READER, LISTER)
    other = policy("other", READER), program("other", "other")
    await running.use(both, program("app", "app"), *other)
    async with running.caller("app") as app, running.caller("other") as witness:
        request = WatchCredentialsRequest(mount=mount, role="app", overlap={"seconds": 1})
        creds = app.creds.WatchCredentials(request)
        leases = app.leases.WatchLeases(lease_pb2.WatchLeasesRequest(prefix=f"{mount}/"))
        spared = witness.leases.WatchLeases(lease_pb2.WatchLeasesRequest(prefix=f"{mount}/"))
        await leases.initial_metadata()
        await spared.initial_metadata()
        await creds.read()
        other_token = program("x").replace('name = "x"', 'name = "app"').replace("[]", '["app"]')
        after = {
            "no read": (policy("app", LISTER), program("app", "app")),
            "no list": (policy("app", READER), program("app", "app")),
            "no identity": (both,),
            "another token": (both, other_token),
            "elsewhere": (both, program("app", "app", **{"from": ["10.0.0.0/8"]})),
            "deny": (policy("app", READER, rule("deny", "sys/leases/*")), program("app", "app")),
        }[change]
        await running.use(*after, *other)
        if change in ("no read", "no list", "deny"):
            ended, kept = (creds, leases) if change == "no read" else (leases, creds)
            refusal = await end_of(aiter(ended))
            assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
            assert not kept.done()
            kept.cancel()
        else:
            for stream in (creds, leases):
                assert (await end_of(aiter(stream))).code is UNAUTHENTICATED
        # The witness sees nobody else's lease, and its own stream is still open.
        made = await witness.generate(mount)
        assert (await spared.read()).lease_id == made.lease_id
        await witness.revoke(made.lease_id)
        spared.cancel()
        await nothing_left(aws, mount)


async def test_leases_of_an_identity_that_has_left_are_counted_and_ended_by_their_owner(
    running: Running, lessor: Lessor, mount: str, aws: StandIn
) -> None:
    await lessor.put_role(mount)
    reader = policy("app", READER)
    assert await running.use(reader, program("app", "app"), program("other", "app")) == 0
    async with running.caller("app") as app, running.caller("other") as other:
        mine = [(await app.generate(mount)).lease_id for _ in range(3)]
        theirs = (await other.generate(mount)).lease_id
        assert await running.use(reader, program("other", "app")) == 3
        for lease_id in mine:
            assert (await refused(app.renew(lease_id))).code is UNAUTHENTICATED
            assert (await lessor.lookup(lease_id)).state == lease_pb2.Lease.ACTIVE
        request = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", owner="app", sync=True)
        assert [one async for one in lessor.leases.RevokePrefix(request)][-1].done == 3
        assert (await lessor.lookup(theirs)).state == lease_pb2.Lease.ACTIVE
        await other.revoke(theirs)
    await nothing_left(aws, mount)
    assert await running.use(reader, program("other", "app")) == 0


async def test_a_renewal_obeys_the_rule_of_now(running: Running, lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    await running.use(policy("app", READER), program("app", "app"))
    async with running.caller("app") as app:
        lease_id = (await app.generate(mount)).lease_id
        await running.use(policy("app", rule("read", "+/creds/app", max_ttl="2m")), program("app", "app"))
        assert (await app.renew(lease_id, 600)).lease_duration.seconds <= 120
        await running.use(policy("app", rule("list", "+/creds/app")), program("app", "app"))
        refusal = await refused(app.renew(lease_id))
        assert refusal.message.startswith(f"this needs read on {mount}/creds/app")
        await app.revoke(lease_id)
