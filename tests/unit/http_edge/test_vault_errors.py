"""Checks the status and the body of each error on each path of Vault's API."""

from __future__ import annotations

import pytest
from multidict import MultiDict

from lessor.v1 import config_pb2
from lessor_server.domain.errors.base import (
    AwsAnswer,
    AwsQuota,
    ErrorKind,
    Invalid,
    LessorError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    RoleFull,
    Unauthenticated,
    Violation,
)
from lessor_server.domain.errors.preconditions import RootRefused
from lessor_server.http_edge.vault.face import TABLE, VaultFace, split_path
from lessor_server.http_edge.vault.routes import VaultRoute, Verb
from tests.support.vault_requests import FACTS, Api, FakeCalls, request_of
from tests.unit.domain.test_errors import ERRORS
from tests.unit.services.test_status import made

METHODS = {Verb.READ: "GET", Verb.LIST: "LIST", Verb.WRITE: "POST", Verb.DELETE: "DELETE"}
SERVED = [kind for kind in ERRORS if ".commands" not in kind.__module__]
FOR_RETRIES = {
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.ABORTED: 503,
    ErrorKind.DEADLINE: 504,
    ErrorKind.QUOTA: 429,
    ErrorKind.INTERNAL: 500,
    ErrorKind.UNIMPLEMENTED: 501,
}
"""The statuses of errors that no state of the request or of its objects causes."""
LEASE = "aws/creds/app/000000000000000000000000"


def path_of(route: VaultRoute) -> str:
    path = route.pattern.replace("{prefix...}", "aws/creds/app").replace("{lease_id...}", LEASE)
    path = path.replace("{path...}", "aws/creds/app").replace("{mount}", "aws").replace("{role}", "app")
    return path.replace("{issuer}", "github").replace("{user}", "someone")


def expected(kind: type[LessorError]) -> int | None:
    """Return the status of an error that clients retry, or may not retry; None for 400, 403 and 404."""
    if issubclass(kind, AwsQuota):
        return 400
    return FOR_RETRIES.get(kind.kind)


@pytest.mark.parametrize("route", TABLE.routes, ids=lambda route: route.pattern)
async def test_clients_retry_an_error_only_where_that_may_help(route: VaultRoute) -> None:
    for kind in SERVED:
        for verb in route.operations:
            api = Api(FakeCalls(error=made(kind)))
            answer = await api.ask(METHODS[verb], path_of(route), {"lease_id": LEASE, "type": "irrevocable"})
            where = f"{kind.__name__} of {verb.name}"
            assert not api.reported, where
            if (status := expected(kind)) is not None:
                assert answer.status == status, where
            else:
                assert answer.status in {204, 400, 403, 404}, where
            assert (answer.status in {429, 503}) == ("Retry-After" in answer.headers), where
            if answer.status != 204:
                assert list(answer.body) == ["errors"], where
                assert all(isinstance(one, str) for one in answer.body["errors"]), where
                assert answer.headers["Content-Type"] == "application/json", where
                assert answer.headers["Cache-Control"] == "no-store", where


@pytest.mark.parametrize("kind", [Unauthenticated, PermissionDenied])
@pytest.mark.parametrize("route", TABLE.routes, ids=lambda route: route.pattern)
async def test_a_caller_without_the_right_gets_403(route: VaultRoute, kind: type[LessorError]) -> None:
    for verb in route.operations:
        answer = await Api(FakeCalls(error=made(kind))).ask(METHODS[verb], path_of(route))
        assert answer.status == 403
        assert answer.body["errors"][0] == "permission denied"


async def test_an_unknown_caller_learns_no_reason() -> None:
    answer = await Api(FakeCalls(error=Unauthenticated("the token is unknown"))).ask("GET", "aws/roles/app")
    assert answer.body == {"errors": ["permission denied"]}


async def test_a_caller_learns_which_right_is_missing() -> None:
    answer = await Api(FakeCalls(error=PermissionDenied("this needs read on x"))).ask("GET", "aws/roles/app")
    assert answer.body["errors"][1].startswith("this needs read on x; ")


async def test_what_is_missing_has_no_text_where_it_is_read_and_one_where_it_is_used() -> None:
    missing = FakeCalls(error=NotFound("role", "aws/app"))
    assert (await Api(missing).ask("GET", "aws/roles/app")).body == {"errors": []}
    used = await Api(missing).ask("GET", "aws/creds/app")
    assert used.status == 400
    assert used.body["errors"][0].startswith("no role 'aws/app'")


async def test_each_violation_is_an_error_of_its_own() -> None:
    error = Invalid((Violation("role.max_ttl", "is long", "shorten it"), Violation("", "is bad", "fix it")))
    answer = await Api(FakeCalls(error=error)).ask("POST", "aws/roles/app")
    assert answer.status == 400
    assert answer.body == {"errors": ["max_ttl: is long; shorten it", "is bad; fix it"]}


async def test_the_number_of_violations_is_bounded() -> None:
    error = Invalid(tuple(Violation(f"x{n}", "is bad", "fix it") for n in range(50)))
    errors = (await Api(FakeCalls(error=error)).ask("POST", "aws/roles/app")).body["errors"]
    assert len(errors) == 20
    assert errors[-1] == "and 31 more; fix these first"


async def test_an_error_of_aws_has_its_code_and_not_its_text() -> None:
    error = RootRefused("the root may not do this")
    error.aws = AwsAnswer("CreateUser", "AccessDenied", "a secret text", "id")
    answer = await Api(FakeCalls(error=error)).ask("GET", "aws/creds/app")
    assert answer.status == 400
    assert "AccessDenied" in answer.body["errors"][0]
    assert "a secret text" not in answer.body["errors"][0]


@pytest.mark.parametrize(
    ("error", "seconds"), [(RoleFull("x", retry_in=7.2), "8"), (QuotaExceeded("x"), "1")]
)
async def test_a_full_role_says_when_to_retry(error: LessorError, seconds: str) -> None:
    answer = await Api(FakeCalls(error=error)).ask("GET", "aws/creds/app")
    assert (answer.status, answer.headers["Retry-After"]) == (429, seconds)


@pytest.mark.parametrize(
    ("name", "harmless", "refused", "status"),
    [("X-Vault-Namespace", "root", "ns1", 404), ("X-Vault-Wrap-TTL", "0", "60s", 400)],
)
async def test_a_second_header_can_not_hide_what_is_not_served(
    name: str, harmless: str, refused: str, status: int
) -> None:
    calls = FakeCalls()
    answer = await Api(calls).ask(
        "GET", "aws/creds/app", None, MultiDict([(name, harmless), (name, refused)])
    )
    assert (answer.status, calls.asked) == (status, [])


async def test_a_mount_has_help_and_nothing_else_at_its_own_path() -> None:
    api = Api(FakeCalls())
    assert "creds/ROLE" in (await api.ask("GET", "aws/?help=1")).body["help"]
    listed = await api.ask("GET", "aws/?list=true")
    assert (listed.status, listed.body["errors"]) == (
        404,
        ['no handler for route "aws". route entry not found.'],
    )


async def test_the_envelope_has_no_member_that_a_caller_chose() -> None:
    answer = await Api(FakeCalls()).ask("POST", "sys/capabilities-self", {"paths": ["data", "auth", "x"]})
    assert answer.body["auth"] is None
    assert answer.body["data"] == {"data": ["root"], "auth": ["root"], "x": ["root"]}
    assert answer.body["x"] == ["root"]


async def test_a_static_role_that_the_caller_can_not_read_is_not_replaced() -> None:
    calls = FakeCalls(error=PermissionDenied("this needs read on aws/static-roles/legacy"))
    answer = await Api(calls).ask(
        "PUT", "aws/static-roles/legacy", {"username": "legacy", "rotation_period": "1h"}
    )
    assert (answer.status, calls.asked) == (403, [])


async def test_a_login_at_an_unknown_issuer_says_where_to_log_in() -> None:
    error = NotFound("issuer", "nowhere", fix="log in at the name of an issuer")
    answer = await Api(FakeCalls(error=error)).ask("POST", "auth/nowhere/login", {"jwt": "x"})
    assert answer.status == 404
    assert answer.body["errors"][0].startswith('no handler for route "auth/nowhere/login"')
    assert answer.body["errors"][1].endswith("; log in at the name of an issuer")


async def test_a_path_below_no_engine_says_how_to_find_one_also_to_root() -> None:
    calls = FakeCalls({"ConfigService.ListMounts": config_pb2.ListMountsResponse()})
    answer = await Api(calls).ask("GET", "sys/internal/ui/mounts/secret/x")
    assert answer.status == 403
    assert answer.body["errors"][0] == "permission denied"
    assert answer.body["errors"][1].startswith("no engine that you may use is at secret/; name an engine")


async def test_several_slashes_count_as_one() -> None:
    asked = request_of("GET", "/v1//aws///roles/app/", b"", {})
    assert split_path(asked) == ["aws", "roles", "app"]
    face = VaultFace(None, FACTS, None, None, None)  # type: ignore[arg-type]
    assert [face.owns(path) for path in ("//v1/aws", "/v1", "/v1x", "/x/v1/")] == [True, True, False, False]
