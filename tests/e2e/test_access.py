"""Checks who may do what with whose leases, for callers with a token, a JWT and a client certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from cryptography.x509 import UniformResourceIdentifier
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from lessor.v1.creds_pb2 import GenerateCredentialsRequest, GenerateCredentialsResponse
from tests.support.access_server import (
    KEY,
    connect_securely,
    jwt,
    policy,
    program,
    rule,
    secure_settings,
    table,
    token_of,
    who,
    write,
)
from tests.support.certificates import Authority
from tests.support.clients import ROOT_SECRET, Lessor, Refusal, nothing_left, refused, struct
from tests.support.json_web_tokens import IssuerServer
from tests.support.server_process import TOKEN, ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
UNAUTHENTICATED, EXHAUSTED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED
NAMES = {"ci": "ci", "github": "gh/acme/app", "pod": "k8s/prod/app"}
"""Callers with a token, a JWT and a client certificate, and their identities."""
PAIRS = [("ci", "github"), ("github", "pod"), ("pod", "ci")]
UNKNOWN_ID = "0" * 24

APP = policy(
    "app",
    rule("read", "+/creds/app"),
    rule("read", "+/creds/few", max_leases=5),
    rule("read", "+/creds/short", max_ttl="5m"),
    rule("read", "+/creds/session", max_ttl="10m"),
    rule("read", "+/creds/strict", require=["reason", "request_id"], forbid=["ttl", "wait_usable"]),
    rule("read", "+/creds/assume", role_arns=["arn:aws:iam::*:role/deploy-*"]),
)
OPERATOR = policy(
    "operator",
    rule("read,list,update", "sys/leases/*"),
    rule("update,sudo", "sys/leases/revoke-prefix/*"),
    rule("update,sudo", "sys/backup"),
    rule("read", "+/config/root"),
    rule("read", "+/static-roles/*"),
    rule("deny", "+/creds/*"),
    rule("deny", "+/static-creds/*"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A server with two listeners: the first requires client certificates, the second asks for none."""

    strict: int
    lax: int
    server_ca: Authority
    client_ca: Authority
    issuer: str
    process: ServerProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[Place]:
    """Run the server of this module."""
    folder = tmp_path_factory.mktemp("access")
    server_ca, client_ca = Authority(folder, "server"), Authority(folder, "clients")
    settings, strict, lax = secure_settings(folder, server_ca.sign("one"), client_ca.ca)
    async with IssuerServer(KEY) as issuer:
        write(
            folder / "access.toml",
            APP,
            OPERATOR,
            table("issuers", name="github", issuer=issuer.url, audiences=["lessor"]),
            program("ci", "app"),
            program("operator", "operator"),
            program("nobody"),
            table(
                "identities",
                name="gh/{repository}",
                policies=["app"],
                jwt={"issuer": "github", "claims": {"repository": "acme/*", "ref": "refs/heads/main"}},
            ),
            table(
                "identities",
                name="k8s/{ns}/{sa}",
                policies=["app"],
                labels={"namespace": "{ns}"},
                spiffe_id="spiffe://example.org/ns/{ns}/sa/{sa}",
            ),
        )
        process = ServerProcess()
        variables = {
            "LESSOR_ACCESS_FILE": str(folder / "access.toml"),
            "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
        }
        await process.start(folder, variables, "--config", str(settings), without=["LESSOR_LISTEN"])
        try:
            yield Place(strict, lax, server_ca, client_ca, issuer.url, process)
        finally:
            await process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(place: Place) -> AsyncIterator[dict[str, Lessor]]:
    """Connect as root, as the operator, and as each of ``NAMES``."""
    pod = place.client_ca.sign(
        "pod", names=[UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/app")]
    )
    tokens = {
        "root": TOKEN,
        "operator": token_of("operator"),
        "nobody": token_of("nobody"),
        "ci": token_of("ci"),
        "github": jwt(place.issuer, repository="acme/app", ref="refs/heads/main"),
    }
    async with AsyncExitStack() as stack:
        found = {
            name: await stack.enter_async_context(connect_securely(place.lax, place.server_ca, token))
            for name, token in tokens.items()
        }
        found["pod"] = await stack.enter_async_context(
            connect_securely(place.strict, place.server_ca, pair=pod)
        )
        yield found


@pytest.fixture(scope="module")
def lessor(callers: dict[str, Lessor]) -> Lessor:
    """Call the server as root."""
    return callers["root"]


def request_of(mount: str, role: str = "app", **fields: object) -> GenerateCredentialsRequest:
    """Return a request for credentials."""
    return GenerateCredentialsRequest(mount=mount, role=role, **fields)  # type: ignore[arg-type]


async def generated(
    caller: Lessor, mount: str, role: str = "app", **fields: object
) -> GenerateCredentialsResponse:
    """Issue credentials."""
    return await caller.creds.GenerateCredentials(request_of(mount, role, **fields))


async def listed(caller: Lessor, mount: str, owner: str = "") -> list[str]:
    """Return the ids of the leases that a caller sees."""
    request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/", owner=owner)
    return [lease.lease_id for lease in (await caller.leases.ListLeases(request)).leases]


async def counted(caller: Lessor, mount: str, owner: str = "") -> int:
    """Return the number of leases that a caller sees."""
    request = lease_pb2.CountLeasesRequest(prefix=f"{mount}/", owner=owner)
    return sum(one.count for one in (await caller.leases.CountLeases(request)).counts)


# --- who calls -------------------------------------------------------------------------------------------


async def test_each_credential_gives_its_caller_a_name_policies_and_labels(
    callers: dict[str, Lessor],
) -> None:
    found = {name: await who(callers[name]) for name in (*NAMES, "nobody", "root")}
    assert {name: found[name].identity for name in NAMES} == NAMES
    methods = {name: one.auth_method for name, one in found.items()}
    assert methods == {"ci": "token", "github": "jwt", "pod": "x509", "nobody": "token", "root": "root"}
    assert dict(found["pod"].labels) == {"namespace": "prod"}
    assert list(found["github"].policies) == ["app"]
    assert list(found["nobody"].policies) == []
    assert [name for name, one in found.items() if one.HasField("expire_time")] == ["github", "pod"]


@pytest.mark.parametrize(
    "claims",
    [
        {"repository": "acme/app", "ref": "refs/heads/other"},
        {"repository": "evil/app", "ref": "refs/heads/main"},
        {"repository": "acme/app"},
        {"repository": "acme/../root", "ref": "refs/heads/main"},
        {"repository": "acme/app", "ref": "refs/heads/main", "aud": "another"},
        {"repository": "acme/app", "ref": "refs/heads/main", "exp": 1},
        {"repository": "acme/app", "ref": "refs/heads/main", "iss": "https://evil.example"},
    ],
)
async def test_a_jwt_that_no_identity_matches_is_refused(place: Place, claims: dict[str, object]) -> None:
    async with connect_securely(place.lax, place.server_ca, jwt(place.issuer, **claims)) as caller:
        assert (await refused(who(caller))).code is UNAUTHENTICATED


async def test_a_good_certificate_never_rescues_a_bad_token(place: Place) -> None:
    uri = UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/app")
    pair = place.client_ca.sign("both", names=[uri])
    async with connect_securely(place.strict, place.server_ca, "unknown-token-of-a-test", pair) as caller:
        assert (await refused(who(caller))).code is UNAUTHENTICATED
    async with connect_securely(place.strict, place.server_ca, token_of("ci"), pair) as caller:
        assert (await who(caller)).identity == "ci"


async def test_the_log_names_every_listener(place: Place) -> None:
    (line,) = [line for line in place.process.log() if line["event"] == "serving"]
    assert line["addresses"] == f"127.0.0.1:{place.strict}, 127.0.0.1:{place.lax}"


async def test_each_listener_asks_for_certificates_as_its_setting_says(place: Place) -> None:
    """A certificate counts only where it was asked for; nobody without one is served where it is required."""
    uri = UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/app")
    pair = place.client_ca.sign("lax", names=[uri])
    async with connect_securely(place.lax, place.server_ca, pair=pair) as caller:
        assert (await refused(who(caller))).code is UNAUTHENTICATED
    async with connect_securely(place.strict, place.server_ca, token_of("ci")) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await who(caller)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://example.org/ns/prod/sa/app", "spiffe://example.org/ns/dev/sa/app"],
        ["spiffe://example.org/ns/prod/sa/"],
        ["spiffe://example.org/ns/prod/sa/app/more"],
        ["spiffe://example.org.evil/ns/prod/sa/app"],
        ["spiffe://example.org/ns/prod/sa/.."],
    ],
)
async def test_a_certificate_whose_names_are_ambiguous_or_others_is_refused(
    place: Place, uris: list[str]
) -> None:
    pair = place.client_ca.sign("strange", names=[UniformResourceIdentifier(uri) for uri in uris])
    async with connect_securely(place.strict, place.server_ca, pair=pair) as caller:
        assert (await refused(who(caller))).code is UNAUTHENTICATED


# --- whose leases ----------------------------------------------------------------------------------------


def without_id(refusal: Refusal, lease_id: str) -> tuple[object, ...]:
    """Return everything that a caller learns from a refusal, except the id that it sent."""
    texts = [str(detail).replace(lease_id, "ID") for detail in refusal.details]
    return refusal.code, refusal.message.replace(lease_id, "ID"), texts


@pytest.mark.parametrize(("owner", "stranger"), PAIRS)
async def test_a_lease_of_another_cannot_be_told_from_one_that_does_not_exist(
    callers: dict[str, Lessor], mount: str, aws: StandIn, owner: str, stranger: str
) -> None:
    await callers["root"].put_role(mount)
    lease_id = (await generated(callers[owner], mount)).lease_id
    other = callers[stranger]
    unknown = f"{mount}/creds/app/{UNKNOWN_ID}"
    for act in (other.lookup, other.renew, other.revoke):
        mine, none = await refused(act(lease_id)), await refused(act(unknown))
        assert (mine.code, mine.reason) == (DENIED, "NOT_YOUR_LEASE")
        assert without_id(mine, lease_id) == without_id(none, unknown)
    lease = await callers[owner].lookup(lease_id)
    assert (lease.state, lease.owner, lease.policy_rule) == (
        lease_pb2.Lease.ACTIVE, NAMES[owner], "+/creds/app",
    )  # fmt: skip
    assert not lease.HasField("last_renewal_time")

    assert await listed(other, mount) == await listed(other, mount, NAMES[owner]) == []
    assert await counted(other, mount) == await counted(other, mount, NAMES[owner]) == 0
    assert await listed(callers[owner], mount) == [lease_id]
    assert await counted(callers[owner], mount, NAMES[owner]) == 1

    assert (await callers[owner].renew(lease_id)).lease_id == lease_id
    await callers[owner].revoke(lease_id)
    await nothing_left(aws, mount)


@pytest.mark.parametrize(("owner", "stranger"), PAIRS)
async def test_a_watch_shows_only_the_leases_of_its_caller(
    callers: dict[str, Lessor], mount: str, owner: str, stranger: str
) -> None:
    await callers["root"].put_role(mount)
    watch = callers[stranger].leases.WatchLeases(lease_pb2.WatchLeasesRequest(prefix=f"{mount}/"))
    await watch.initial_metadata()
    theirs = (await generated(callers[owner], mount)).lease_id
    await callers[owner].renew(theirs)
    await callers[owner].revoke(theirs)
    own = (await generated(callers[stranger], mount)).lease_id
    await callers[stranger].revoke(own)
    seen = [await watch.read() for _ in range(2)]
    assert {event.lease_id for event in seen} == {own}
    watch.cancel()


async def test_equal_request_ids_of_two_callers_are_two_leases(
    callers: dict[str, Lessor], mount: str
) -> None:
    await callers["root"].put_role(mount)
    request_id = str(uuid4())
    first = {name: (await generated(callers[name], mount, request_id=request_id)) for name in NAMES}
    again = {name: (await generated(callers[name], mount, request_id=request_id)) for name in NAMES}
    ids = {name: made.lease_id for name, made in first.items()}
    assert len(set(ids.values())) == len(NAMES)
    assert {name: made.lease_id for name, made in again.items()} == ids
    keys = [made.access_key for made in (*first.values(), *again.values())]
    assert len(set(keys)) == len(keys)


async def test_the_operator_sees_and_ends_leases_of_all_but_gets_no_credentials(
    callers: dict[str, Lessor], mount: str, aws: StandIn
) -> None:
    await callers["root"].put_role(mount)
    ids = {name: (await generated(callers[name], mount)).lease_id for name in NAMES}
    operator = callers["operator"]
    assert sorted(await listed(operator, mount)) == sorted(ids.values())
    assert await listed(operator, mount, "gh/acme/app") == [ids["github"]]
    assert (await operator.lookup(ids["pod"])).owner == NAMES["pod"]
    assert (await operator.renew(ids["pod"])).lease_id == ids["pod"]
    denied = await refused(generated(operator, mount))
    assert (denied.code, denied.reason) == (DENIED, "PERMISSION_DENIED")
    request = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", owner=NAMES["github"], sync=True)
    assert [one async for one in operator.leases.RevokePrefix(request)][-1].done == 1
    left = {name: (await operator.lookup(lease_id)).state for name, lease_id in ids.items()}
    assert left == {
        "ci": lease_pb2.Lease.ACTIVE,
        "github": lease_pb2.Lease.GONE,
        "pod": lease_pb2.Lease.ACTIVE,
    }
    whole = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/")
    assert (await refused(anext(aiter(callers["ci"].leases.RevokePrefix(whole))))).code is DENIED
    assert [one async for one in operator.leases.RevokePrefix(whole)]
    await nothing_left(aws, mount)


async def test_the_operator_gets_no_credentials_by_another_way_than_creds(
    callers: dict[str, Lessor], place: Place, mount: str, aws: StandIn
) -> None:
    """By static credentials, a stream, a root, a lease or a backup."""
    root, operator = callers["root"], callers["operator"]
    await root.put_role(mount)
    await aws.call("CreateUser", UserName="operated")
    role = role_pb2.StaticRole(name="fixed", username="operated", rotation_period=Duration(seconds=86400))
    await root.roles.PutStaticRole(role_pb2.PutStaticRoleRequest(mount=mount, static_role=role))
    of_fixed = creds_pb2.GetStaticCredentialsRequest(mount=mount, role="fixed")
    fixed = await root.creds.GetStaticCredentials(of_fixed)
    stream = creds_pb2.WatchCredentialsRequest(mount=mount, role="app")
    issued = await generated(callers["ci"], mount)
    for taken in (
        operator.creds.GetStaticCredentials(of_fixed),
        anext(aiter(operator.creds.WatchCredentials(stream))),
    ):
        assert (await refused(taken)).reason == "PERMISSION_DENIED"
    assert issued.secret_key
    secrets = (issued.secret_key, fixed.secret_key, ROOT_SECRET)
    shown = [
        await operator.config.GetRoot(config_pb2.GetRootRequest(mount=mount)),
        await operator.roles.GetStaticRole(role_pb2.GetStaticRoleRequest(mount=mount, name="fixed")),
        await operator.lookup(issued.lease_id),
        await operator.leases.ListLeases(lease_pb2.ListLeasesRequest(prefix=f"{mount}/")),
    ]
    assert [one for one in shown if any(secret in str(one) for secret in secrets)] == []
    copy = await operator.system.Backup(system_pb2.BackupRequest(path=f"{mount}.db"))
    content = (place.process.data_dir / copy.path).read_bytes()
    assert [secret for secret in secrets if secret.encode() in content] == []
    await root.revoke(issued.lease_id)


async def test_a_refusal_says_what_is_missing_and_not_what_exists(
    callers: dict[str, Lessor], mount: str
) -> None:
    await callers["root"].put_role(mount, "secret")
    for caller in ("ci", "github", "pod", "nobody"):
        real = await refused(generated(callers[caller], mount, "secret"))
        none = await refused(generated(callers[caller], "nomount", "norole"))
        assert real.message.startswith(f"this needs read on {mount}/creds/secret")
        assert real.message.replace(f"{mount}/creds/secret", "X") == none.message.replace(
            "nomount/creds/norole", "X"
        )
        assert (real.code, real.reason) == (none.code, none.reason) == (DENIED, "PERMISSION_DENIED")
    nameless = await refused(generated(callers["nobody"], mount, "no such/name"))
    assert nameless.code is INVALID


# --- limits of rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", NAMES)
async def test_a_race_never_admits_more_leases_than_the_rule_allows(
    callers: dict[str, Lessor], mount: str, aws: StandIn, caller: str
) -> None:
    await callers["root"].put_role(mount, "few")
    outcomes = await asyncio.gather(
        *(generated(callers[caller], mount, "few") for _ in range(15)), return_exceptions=True
    )
    made = [one for one in outcomes if isinstance(one, GenerateCredentialsResponse)]
    errors = [Refusal.of(one) for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
    assert (len(made), len(errors)) == (5, 10)
    assert {(one.code, one.reason) for one in errors} == {(EXHAUSTED, "RULE_MAX_LEASES")}

    await callers[caller].revoke(made[0].lease_id)
    assert (await generated(callers[caller], mount, "few")).lease_id
    assert (await refused(generated(callers[caller], mount, "few"))).reason == "RULE_MAX_LEASES"
    whole = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", sync=True)
    assert [one async for one in callers["root"].leases.RevokePrefix(whole)]
    await nothing_left(aws, mount)


async def test_max_ttl_bounds_a_lease_with_all_its_renewals(callers: dict[str, Lessor], mount: str) -> None:
    await callers["root"].put_role(mount, "short")
    made = await generated(callers["ci"], mount, "short", ttl=Duration(seconds=900))
    assert made.lease_duration.seconds <= 300
    assert made.warnings
    lease = await callers["ci"].lookup(made.lease_id)
    assert lease.max_expire_time.seconds - lease.issue_time.seconds <= 300
    renewed = await callers["ci"].renew(made.lease_id, 900)
    assert renewed.expire_time.seconds <= lease.max_expire_time.seconds
    assert renewed.warnings


async def test_a_rule_shorter_than_a_session_refuses_sessions(
    callers: dict[str, Lessor], mount: str, aws: StandIn
) -> None:
    role_arn = await aws.role("session")
    await callers["root"].put_role(
        mount,
        "session",
        credential_type=role_pb2.Role.ASSUMED_ROLE,
        policy_document=None,
        role_arns=[role_arn],
    )
    denied = await refused(generated(callers["pod"], mount, "session"))
    assert denied.code is DENIED
    assert "max_ttl" in denied.message


async def test_required_and_forbidden_fields_are_named_all_at_once(
    callers: dict[str, Lessor], mount: str
) -> None:
    await callers["root"].put_role(mount, "strict")
    for caller in NAMES:
        wrong = await refused(generated(callers[caller], mount, "strict", ttl=Duration(seconds=600)))
        assert wrong.code is INVALID
        assert set(wrong.violations) == {"reason", "request_id", "ttl"}
        right = await generated(callers[caller], mount, "strict", reason="a test", request_id=str(uuid4()))
        assert (await callers[caller].lookup(right.lease_id)).reason == "a test"


@pytest.mark.parametrize(
    ("name", "path", "admitted"),
    [
        ("deploy-web", "", True),
        ("admin", "", False),
        ("admin", "deploy-team/", False),
        ("xdeploy-web", "", False),
    ],
)
async def test_a_rule_limits_which_role_a_session_is_of(
    callers: dict[str, Lessor], mount: str, aws: StandIn, name: str, path: str, admitted: bool
) -> None:
    """The account's own role would allow all of them, and a ``*`` of the rule stands for no ``/``."""
    role_arn = f"arn:aws:iam::123456789012:role/{path}{name}"
    if admitted:
        await aws.role(name)
    await callers["root"].put_role(
        mount,
        "assume",
        credential_type=role_pb2.Role.ASSUMED_ROLE,
        policy_document=None,
        role_arns=[role_arn],
    )
    asked = generated(callers["ci"], mount, "assume", role_arn=role_arn)
    if admitted:
        assert name in (await asked).arn
    else:
        denied = await refused(asked)
        assert (denied.code, "role_arn" in denied.message) == (DENIED, True)


async def test_nobody_can_change_a_role_without_the_right_to(callers: dict[str, Lessor], mount: str) -> None:
    """An application can't widen what it gets."""
    await callers["root"].put_role(mount)
    role = role_pb2.Role(
        name="app", credential_type=role_pb2.Role.IAM_USER, policy_document=struct({"Statement": []})
    )
    for caller in (*NAMES, "operator", "nobody"):
        denied = await refused(callers[caller].roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role)))
        assert (denied.code, denied.message.startswith(f"this needs update on {mount}/roles/app")) == (
            DENIED, True,
        )  # fmt: skip
