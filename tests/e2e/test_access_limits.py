"""Checks where and how long a credential counts, and how many calls and streams an identity may have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography.x509 import UniformResourceIdentifier

from lessor.v1 import lease_pb2, system_pb2
from lessor.v1.creds_pb2 import WatchCredentialsRequest
from lessor_server.adapters.clock import SystemClock
from tests.support.access_server import (
    KEY,
    Verbatim,
    connect_securely,
    jwt,
    policy,
    program,
    reload,
    rule,
    secure_settings,
    serving_with,
    table,
    token_of,
    who,
    write,
)
from tests.support.certificates import Authority, KeyPair
from tests.support.clients import Lessor, Refusal, connect, nothing_left, refused, until
from tests.support.json_web_tokens import IssuerServer
from tests.support.server_process import TOKEN, ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

UNAUTHENTICATED, EXHAUSTED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED
SPIFFE = UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/app")
SHORT = 3.0
"""The life of a credential that ends while a stream is open, in seconds."""
APP = policy("app", rule("read", "+/creds/app"))
EVERYWHERE = lease_pb2.WatchLeasesRequest(prefix="aws/")


@asynccontextmanager
async def calling(server: ServerProcess, token: str, address: str = "") -> AsyncIterator[Lessor]:
    """Connect with a token."""
    async with connect(address or server.address, token) as caller:
        yield caller


# --- where a call comes from, and the root token ---------------------------------------------------------

PLACES = {
    "anywhere": [],
    "unix": ["unix"],
    "loopback": ["127.0.0.0/8"],
    "both": ["unix", "127.0.0.1/32"],
    "far": ["10.0.0.0/8", "::/0"],
}


async def is_admitted(server: ServerProcess, name: str, place: str) -> bool:
    """Tell whether a program is who it is at an address; it claims to call from elsewhere."""
    elsewhere = (("x-forwarded-for", "10.1.1.1"), ("forwarded", "for=10.1.1.1"))
    async with calling(server, token_of(name), place) as caller:
        call = caller.system.WhoAmI(system_pb2.WhoAmIRequest(), metadata=elsewhere)
        try:
            return (await call).identity == name
        except grpc.aio.AioRpcError as error:
            if Refusal.of(error).code is not UNAUTHENTICATED:
                raise
            return False


async def test_an_identity_counts_only_where_its_from_says(tmp_path: Path) -> None:
    """A header that names another address changes nothing, nor does another identity of the same caller."""
    write(
        tmp_path / "access.toml",
        *(program(name, **({"from": places} if places else {})) for name, places in PLACES.items()),
    )
    socket = f"unix:{tmp_path}/socket"
    variables = {"LESSOR_LISTEN": f"127.0.0.1:0,{socket}"}
    async with serving_with(tmp_path, tmp_path / "access.toml", variables) as server:
        admitted = {
            place: [name for name in PLACES if await is_admitted(server, name, place)]
            for place in (server.address, socket)
        }
        assert admitted == {
            server.address: ["anywhere", "loopback", "both"],
            socket: ["anywhere", "unix", "both"],
        }


async def test_without_a_root_token_only_the_file_admits_anybody(tmp_path: Path) -> None:
    admin = policy("admin", rule("update,sudo", "sys/access/reload"))
    write(tmp_path / "access.toml", admin, program("admin", "admin"))
    variables = {"LESSOR_ACCESS_ROOT_TOKEN": "false"}
    async with serving_with(tmp_path, tmp_path / "access.toml", variables) as server:
        async with calling(server, TOKEN) as root:
            assert (await refused(who(root))).code is UNAUTHENTICATED
        async with calling(server, token_of("admin")) as operator:
            assert (await reload(operator)).identities == 1
        assert not (server.data_dir / "root-token").exists()


async def test_two_authorization_values_are_refused_even_if_both_are_good(tmp_path: Path) -> None:
    write(tmp_path / "access.toml", program("one"), program("two"))
    async with (
        serving_with(tmp_path, tmp_path / "access.toml") as server,
        calling(server, token_of("one")) as caller,
    ):
        for value in (f"Bearer {token_of('one')}", f"Bearer {token_of('two')}", "Bearer ", "Basic eDp5"):
            twice = caller.system.WhoAmI(system_pb2.WhoAmIRequest(), metadata=(("authorization", value),))
            assert (await refused(twice)).code is UNAUTHENTICATED


# --- how long a credential counts ------------------------------------------------------------------------


def moment(seconds: float) -> Verbatim:
    """Return a time ``seconds`` from now in TOML."""
    return Verbatim(datetime.fromtimestamp(SystemClock().wall() + seconds, UTC).isoformat())


async def ended(watch: object) -> Refusal:
    """Wait for the error that ends a stream."""

    async def skip() -> None:
        async for _ in watch:  # type: ignore[attr-defined]
            pass

    async with asyncio.timeout(30):
        return await refused(skip())


@dataclass(frozen=True, slots=True)
class Brief:
    """Callers whose credentials end after ``SHORT``, and one with the certificate that comes after."""

    root: Lessor
    callers: dict[str, Lessor]
    successor: Lessor


@asynccontextmanager
async def brief_callers(folder: Path, aws: StandIn) -> AsyncIterator[Brief]:
    """Run a server for callers with a fixed token, a JWT and a client certificate that end soon."""
    server_ca, client_ca = Authority(folder, "server"), Authority(folder, "clients")
    settings, strict, lax = secure_settings(folder, server_ca.sign("one"), client_ca.ca)
    file = folder / "access.toml"
    spiffe_id = "spiffe://example.org/ns/prod/sa/{sa}"
    async with IssuerServer(KEY) as issuer, AsyncExitStack() as stack:
        tables = (
            APP,
            table("issuers", name="own", issuer=issuer.url, audiences=["lessor"], leeway="0s"),
            table("identities", name="jwt/{sub}", policies=["app"], jwt={"issuer": "own"}),
            table("identities", name="pod/{sa}", policies=["app"], spiffe_id=spiffe_id),
        )
        write(file, *tables)
        server = ServerProcess()
        variables = {"LESSOR_ACCESS_FILE": str(file), "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
        await server.start(folder, variables, "--config", str(settings), without=["LESSOR_LISTEN"])
        stack.push_async_callback(server.kill)

        async def opened(port: int, token: str = "", pair: KeyPair | None = None) -> Lessor:
            return await stack.enter_async_context(connect_securely(port, server_ca, token, pair))

        root = await opened(lax, TOKEN)
        await root.enable("aws", aws.url)
        await root.put_role("aws")
        lasting = client_ca.sign("new", names=[SPIFFE])
        write(file, *tables, program("brief", "app", token_expires=moment(SHORT)))
        await reload(root)
        old = client_ca.sign("old", names=[SPIFFE], life=timedelta(seconds=SHORT))
        callers = {
            "token": await opened(lax, token_of("brief")),
            "jwt": await opened(lax, jwt(issuer.url, SHORT, sub="app")),
            "x509": await opened(strict, pair=old),
        }
        yield Brief(root, callers, await opened(strict, pair=lasting))


async def test_a_stream_ends_with_its_credential_and_that_of_its_successor_goes_on(
    tmp_path: Path, aws: StandIn
) -> None:
    """Who renews a certificate opens a new stream; the old one ends with the old certificate."""
    async with brief_callers(tmp_path, aws) as brief:
        watches = [caller.leases.WatchLeases(EVERYWHERE) for caller in brief.callers.values()]
        kept = brief.successor.leases.WatchLeases(EVERYWHERE)
        request = WatchCredentialsRequest(role="app", overlap={"seconds": 1})
        creds = brief.callers["jwt"].creds.WatchCredentials(request)
        for watch in (*watches, kept):
            await watch.initial_metadata()
        assert (await creds.read()).lease_id
        for caller in brief.callers.values():
            left = (await who(caller)).expire_time.ToNanoseconds() / 1e9 - SystemClock().wall()
            assert 0 < left <= SHORT + 1

        for stream in (*watches, creds):
            refusal = await ended(stream)
            assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "UNAUTHENTICATED")
        for caller in brief.callers.values():
            assert (await refused(who(caller))).code is UNAUTHENTICATED
        await nothing_left(aws, "aws")
        made = await brief.successor.generate("aws")
        async with asyncio.timeout(30):
            assert (await kept.read()).lease_id == made.lease_id
        kept.cancel()


# --- issuers ---------------------------------------------------------------------------------------------


async def test_a_silent_issuer_and_a_flood_of_new_jwts_harm_no_other_caller(tmp_path: Path) -> None:
    async with IssuerServer(KEY) as good, IssuerServer(KEY) as silent:
        silent.status = 500
        write(
            tmp_path / "access.toml",
            program("app"),
            *(
                table("issuers", name=name, issuer=issuer.url, audiences=["lessor"])
                + table("identities", name=f"{name}/{{sub}}", jwt={"issuer": name})
                for name, issuer in (("good", good), ("silent", silent))
            ),
        )
        variables = {"LESSOR_LIMITS_NEW_JWTS_PER_PEER": "1"}
        async with (
            serving_with(tmp_path, tmp_path / "access.toml", variables) as server,
            calling(server, jwt(silent.url, sub="x")) as unlucky,
            calling(server, token_of("app")) as app,
            calling(server, TOKEN) as root,
            AsyncExitStack() as stack,
        ):
            refusal = await refused(who(unlucky))
            assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "ISSUER_UNAVAILABLE")
            assert str(silent.url) not in refusal.message
            # The warning names the issuer and its URL, so it is for operators.
            assert [text for text in (await root.info()).warnings if '"silent"' in text]
            assert [text for text in (await app.info()).warnings if '"silent"' in text] == []

            callers = [
                await stack.enter_async_context(calling(server, jwt(good.url, sub=f"pod{number}")))
                for number in range(4)
            ]
            reasons = await asyncio.gather(*(verdict(caller) for caller in callers))
            assert set(reasons) == {"", "TRY_LATER"}
            known = callers[reasons.index("")]
            assert {await verdict(known) for _ in range(20)} == {""}
            assert await verdict(app) == ""
            await until(lambda: verdict(callers[reasons.index("TRY_LATER")]), lambda reason: not reason)


async def verdict(caller: Lessor) -> str:
    """Return why a caller is not known, or an empty text."""
    try:
        await who(caller)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error).reason
    return ""


# --- limits by identity ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limited:
    """A server with low limits."""

    process: ServerProcess
    app: Lessor
    other: Lessor
    root: Lessor


LIMITS = {
    "LESSOR_LIMITS_CALLS_PER_IDENTITY": "2",
    "LESSOR_LIMITS_WATCHES_PER_IDENTITY": "2",
    "LESSOR_LIMITS_CONCURRENT_CALLS": "5",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Limited]:
    """Run a server with ``LIMITS``."""
    folder = tmp_path_factory.mktemp("limits")
    write(folder / "access.toml", APP, *(program(name, "app") for name in ("app", "other", "third")))
    async with (
        serving_with(folder, folder / "access.toml", LIMITS) as server,
        calling(server, token_of("app")) as app,
        calling(server, token_of("other")) as other,
        calling(server, TOKEN) as root,
    ):
        yield Limited(server, app, other, root)


@asynccontextmanager
async def withheld(caller: Lessor, token: str, count: int) -> AsyncIterator[None]:
    """Have calls in progress whose messages do not arrive until the end of the block."""
    release = asyncio.Event()

    async def message() -> AsyncIterator[bytes]:
        await release.wait()
        yield b""

    method = caller.channel.stream_unary("/lessor.v1.SystemService/WhoAmI")
    calls = [
        method(message(), metadata=(("authorization", f"Bearer {token}"),), timeout=20) for _ in range(count)
    ]
    try:
        yield
    finally:
        release.set()
        await asyncio.gather(*calls, return_exceptions=True)


async def reason_of(caller: Lessor) -> str:
    """Return why a call is refused, or an empty text."""
    try:
        await who(caller)
    except grpc.aio.AioRpcError as error:
        refusal = Refusal.of(error)
        assert refusal.code is EXHAUSTED
        return refusal.reason
    return ""


async def test_an_identity_has_a_number_of_calls_and_takes_none_of_anothers(limited: Limited) -> None:
    async with withheld(limited.other, token_of("app"), 2):
        await until(lambda: reason_of(limited.app), lambda reason: reason == "TOO_MANY_CALLS")
        assert await reason_of(limited.other) == ""
        assert await reason_of(limited.root) == ""
    await until(lambda: reason_of(limited.app), lambda reason: not reason)


async def test_the_process_has_a_number_of_calls(limited: Limited) -> None:
    async with AsyncExitStack() as stack:
        for name, count in (("app", 2), ("other", 2), ("third", 1)):
            await stack.enter_async_context(withheld(limited.root, token_of(name), count))
        await until(lambda: reason_of(limited.root), lambda reason: reason == "TOO_MANY_CALLS")
    await until(lambda: reason_of(limited.root), lambda reason: not reason)


async def test_an_identity_has_a_number_of_streams_besides_its_calls(limited: Limited) -> None:
    streams = [limited.app.leases.WatchLeases(EVERYWHERE) for _ in range(2)]
    for stream in streams:
        await stream.initial_metadata()
    refusal = await ended(limited.app.leases.WatchLeases(EVERYWHERE))
    assert (refusal.code, refusal.reason) == (EXHAUSTED, "TOO_MANY_WATCHES")
    assert await reason_of(limited.app) == ""
    another = limited.other.leases.WatchLeases(EVERYWHERE)
    await another.initial_metadata()

    streams.pop().cancel()

    async def opens() -> bool:
        stream = limited.app.leases.WatchLeases(EVERYWHERE)
        await stream.initial_metadata()
        return not stream.done()

    assert await until(opens, bool)


async def test_a_rate_limits_one_identity_and_not_root(tmp_path: Path) -> None:
    """A burst of twice the rate is admitted; one refused call does not use up what the next one needs."""
    write(tmp_path / "access.toml", program("app"), program("other"))
    variables = {"LESSOR_LIMITS_RATE_PER_IDENTITY": "0.5"}
    async with (
        serving_with(tmp_path, tmp_path / "access.toml", variables) as server,
        calling(server, token_of("app")) as app,
        calling(server, token_of("other")) as other,
        calling(server, TOKEN) as root,
    ):
        assert await reason_of(app) == ""
        refusals = [one for one in [await reason_of(app) for _ in range(5)] if one]
        assert set(refusals) == {"RATE_LIMITED"}
        assert await reason_of(other) == ""
        assert [await reason_of(root) for _ in range(20)] == [""] * 20
        refusal = await refused(who(app))
        assert refusal.reason == "RATE_LIMITED"
        await until(lambda: reason_of(app), lambda reason: not reason)
