"""Checks that a malformed answer counts as neither a success nor a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from itertools import product
from typing import Protocol
from urllib.parse import unquote

import pytest
from tests.support.gateways import gateway, root
from tests.support.stranger import page, stranger

from lessor_server.adapters.aws.http_connection import NotAnAnswer
from lessor_server.adapters.aws.xml_check import MAX_QUOTES, MAX_TAGS, parse_answer
from lessor_server.domain.aws.errors import AwsError, AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import (
    AccessKey,
    Call,
    CreateAccessKey,
    CreateUser,
    DeleteUser,
    GetAccountSummary,
    GetGroupPolicy,
    GetUser,
    ListAccessKeys,
    ListKeyDates,
    ListMFADevices,
    ListUserPolicies,
    ListUsers,
    SimulatePrincipalPolicy,
    VerifyKeyOnIam,
)
from lessor_server.domain.aws.sts_calls import (
    AssumeRole,
    AssumeRoleWithWebIdentity,
    GetCallerIdentity,
    GetFederationToken,
    GetServerTime,
    GetSessionToken,
)
from lessor_server.domain.secret import Secret
from lessor_server.engine.aws.request_ids import collect_request_ids

HTML = b"<html><head><title>Access denied</title></head><body>Log in to the network</body></html>"
ERROR = (
    "<ErrorResponse><Error><Code>{}</Code><Message>{}</Message></Error>"
    "<RequestId>r-1</RequestId></ErrorResponse>"
)
NAME = "DeleteUser"
DONE = (
    f"<{NAME}Response><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{NAME}Response>".encode()
)


class Outcome(Protocol):
    """Sends a call to a server that answers so; returns what came back or the error."""

    def __call__(self, answer: bytes, call: Call[object]) -> Awaitable[object]:
        """Send it."""
        ...


@pytest.fixture
async def outcome() -> AsyncIterator[Outcome]:
    """Run the server, and one door to it."""
    async with stranger() as one, gateway(one.url) as door:

        async def send(answer: bytes, call: Call[object]) -> object:
            one.answer = answer
            try:
                return await door.send(root(one.url), call)
            except AwsError as error:
                return error

        yield send


def result(action: str, inner: str, request_id: str = "r-1") -> bytes:
    """Write an answer of AWS to an action around what it holds."""
    text = (
        f"<{action}Response><{action}Result>{inner}</{action}Result>"
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
    return page(200, text.encode())


# --- whether it is AWS's at all ---------------------------------------------------------------------------


STATUSES = (200, 201, 400, 403, 404, 407, 429, 500, 503, 511)


PAGES: tuple[bytes, ...] = (
    b"",
    b" ",
    HTML,
    b"<!DOCTYPE html>" + HTML,
    b'{"__type":"AccessDenied","message":"no"}',
    b"AccessDenied",
    ERROR.format("", "empty").encode(),
    ERROR.format(" ", "blank").encode(),
    ERROR.format("not a code", "words").encode(),
    ERROR.format("A" * 101, "long").encode(),
    ERROR.format("NoSuchEntity\n", "two lines").encode(),
    ERROR.format("NoSuchEntityé", "no ASCII").encode(),
    b"<ErrorResponse><Error>NoSuchEntity</Error></ErrorResponse>",
    b"<ErrorResponse><Error/></ErrorResponse>",
    b"<ErrorResponse/>",
    b"<Error><Code>NoSuchEntity</Code></Error>",
    b"<Response><Errors><Error><Code>NoSuchEntity</Code></Error></Errors></Response>",
    ERROR.format("NoSuchEntity", "cut").encode()[:-1],
    ERROR.format("NoSuchEntity", "latin").encode() + b"\xe9",
    b"<GetUserResponse><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetUserResponse>",
    DONE[:-1],
    DONE + DONE,
)


async def test_an_answer_that_is_not_awss_is_unreadable_with_any_status(outcome: Outcome) -> None:
    for status, body in product(STATUSES, PAGES):
        error = await outcome(page(status, body), DeleteUser("ann"))
        assert isinstance(error, AwsUnknown), (status, body)
        assert error.sent
        assert error.aws is not None
        assert error.aws.code == "UnreadableAnswer"
        assert error.detail.startswith(f"HTTP {status}: ")


async def test_an_error_with_a_success_status_is_unreadable(outcome: Outcome) -> None:
    for status in (200, 201, 202, 204, 206, 226, 299):
        body = b"" if status == 204 else ERROR.format("NoSuchEntity", "The user with name ann").encode()
        assert isinstance(await outcome(page(status, body), DeleteUser("ann")), AwsUnknown)


async def test_a_success_needs_status_200(outcome: Outcome) -> None:
    for status in (201, 202, 206, 226, 299, 400, 500):
        assert isinstance(await outcome(page(status, DONE), DeleteUser("ann")), AwsUnknown)


async def test_valid_answers_of_aws_and_moto_are_read(outcome: Outcome) -> None:
    assert await outcome(page(200, DONE), DeleteUser("ann")) is None
    error = ERROR.format("NoSuchEntity", "The user with name ann cannot be found.")
    for body in (error, error.replace("<Error>", "<Errors><Error>").replace("</Error>", "</Error></Errors>")):
        refused = await outcome(page(404, body.encode()), DeleteUser("ann"))
        assert isinstance(refused, AwsRefused)
        assert refused.refusal is Refusal.NO_SUCH_USER


@pytest.mark.parametrize("code", ["NoSuchEntity", "AccessDenied", "EntityAlreadyExists", "SomethingElse"])
async def test_status_500_is_not_a_refusal(outcome: Outcome, code: str) -> None:
    """Whatever its code. Only throttling is known to have had no effect."""
    body = ERROR.format(code, "The user with name ann cannot be found.").encode()
    assert isinstance(await outcome(page(500, body), DeleteUser("ann")), AwsUnknown)
    throttled = await outcome(page(503, ERROR.format("SlowDown", "").encode()), DeleteUser("ann"))
    assert isinstance(throttled, AwsRefused)
    assert throttled.refusal is Refusal.THROTTLED


async def test_an_html_page_does_not_verify_a_key(outcome: Outcome) -> None:
    """A proxy's 403 is not IAM's AccessDenied."""
    proof = VerifyKeyOnIam(AccessKey("AKIAEXAMPLEEXAMPLE00", Secret("not-a-secret")), "ann")
    for body in (HTML, b"", b"<Error><Code>AccessDenied</Code></Error>"):
        assert isinstance(await outcome(page(403, body), proof), AwsUnknown)


async def test_a_malformed_request_id_is_dropped(outcome: Outcome) -> None:
    """It is sent to callers and written to the log."""
    for said, expected in (("a1-B2", "a1-B2"), ("a b", ""), ("a\x7f", ""), ("a" * 65, ""), ("é", "")):
        body = ERROR.format("AccessDenied", "").replace("r-1", said).encode()
        refused = await outcome(page(403, body), DeleteUser("ann"))
        assert isinstance(refused, AwsRefused)
        assert refused.aws is not None
        assert refused.aws.request_id == expected


# --- what would grow --------------------------------------------------------------------------------------

ENTITIES = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 8))
BOMB = (
    f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{ENTITIES}]>'
    f"<{NAME}Response>&a7;</{NAME}Response>"
)
NAMES_IN_X = "".join(f"<x:a{number}/>" for number in range(2_000))
"""Each name becomes as long as the namespace x."""
ATTRIBUTES_IN_X = " ".join(f"x:a{number}=''" for number in range(2_000))


@pytest.mark.parametrize(
    "body",
    [
        BOMB.encode(),
        BOMB.encode("utf-16"),
        BOMB.encode("utf-16-le"),
        BOMB.replace("?>", ' encoding="utf-7"?>').replace("<!", "+ADw-!").encode(),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        b"<" * (MAX_TAGS + 1),
        b"<x " + b"a='' " * (MAX_QUOTES // 2 + 1) + b"/>",
        b"<x>" * 30_000 + b"</x>" * 30_000,
        f'<{NAME}Response xmlns:x="{"u" * 20_000}">{NAMES_IN_X}</{NAME}Response>'.encode(),
        f'<{NAME}Response xmlns:x="{"u" * 20_000}"><a {ATTRIBUTES_IN_X}/></{NAME}Response>'.encode(),
        b"",
        b"\0",
        b"\xff",
    ],
    ids=range(13),
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_xml_entities_and_excess_elements_are_not_parsed(body: bytes, status: int) -> None:
    with pytest.raises(NotAnAnswer):
        parse_answer(NAME, status, body)


async def test_a_long_policy_that_has_the_word_of_namespaces_is_read(outcome: Outcome) -> None:
    text = "xmlns%3D" * 40_000
    answer = result("GetGroupPolicy", f"<PolicyDocument>{text}</PolicyDocument>")
    assert await outcome(answer, GetGroupPolicy("g", "p")) == unquote(text)


async def test_deeply_nested_xml_is_harmless(outcome: Outcome) -> None:
    deep = "<Error>" * 20_000 + "</Error>" * 20_000
    error = f"<ErrorResponse><Error><Code>NoSuchEntity</Code>{deep}</Error></ErrorResponse>".encode()
    assert isinstance(await outcome(page(404, error), DeleteUser("ann")), AwsError)
    assert isinstance(await outcome(result("GetUser", deep), GetUser("ann")), AwsUnknown)


# --- fields that are missing or wrong ---------------------------------------------------------------------

USER = (
    "<UserName>ann</UserName><Path>/</Path><Arn>arn:aws:iam::123456789012:user/ann</Arn>"
    "<UserId>AIDAEXAMPLEEXAMPLE00</UserId><CreateDate>2025-01-01T00:00:00Z</CreateDate>"
)
KEY = "<AccessKeyId>AKIAEXAMPLEEXAMPLE00</AccessKeyId><SecretAccessKey>not-a-secret</SecretAccessKey>"
LISTED = "<AccessKeyId>AKIAEXAMPLEEXAMPLE00</AccessKeyId><CreateDate>2025-01-01T00:00:00Z</CreateDate>"
SESSION = KEY + "<SessionToken>not-a-token</SessionToken><Expiration>2025-01-01T00:00:00Z</Expiration>"
IDENTITY = (
    "<Arn>arn:aws:iam::123456789012:user/ann</Arn><Account>123456789012</Account>"
    "<UserId>AIDAEXAMPLEEXAMPLE00</UserId>"
)
ROLE = AssumeRole("arn:aws:iam::123456789012:role/r", "session", 900)
SIMULATE = SimulatePrincipalPolicy("arn:aws:iam::123456789012:user/ann", ("iam:GetUser",), ("*",))
VERDICT = "<EvalActionName>iam:GetUser</EvalActionName><EvalDecision>allowed</EvalDecision>"
READ: tuple[tuple[str, Call[object], str], ...] = (
    ("CreateUser", CreateUser("ann", "/", "", ()), f"<User>{USER}</User>"),
    ("GetUser", GetUser("ann"), f"<User>{USER}</User>"),
    ("ListUsers", ListUsers("/"), f"<Users><member>{USER}</member></Users>"),
    ("CreateAccessKey", CreateAccessKey("ann"), f"<AccessKey><UserName>ann</UserName>{KEY}</AccessKey>"),
    (
        "ListAccessKeys",
        ListAccessKeys("ann"),
        f"<AccessKeyMetadata><member>{LISTED}</member></AccessKeyMetadata>",
    ),
    ("ListUserPolicies", ListUserPolicies("ann"), "<PolicyNames><member>p</member></PolicyNames>"),
    ("GetCallerIdentity", GetCallerIdentity(), IDENTITY),
    ("GetSessionToken", GetSessionToken(900), f"<Credentials>{SESSION}</Credentials>"),
    ("AssumeRole", ROLE, f"<Credentials>{SESSION}</Credentials>"),
    ("GetGroupPolicy", GetGroupPolicy("g", "p"), "<PolicyDocument>%7B%7D</PolicyDocument>"),
    (
        "SimulatePrincipalPolicy",
        SIMULATE,
        f"<EvaluationResults><member>{VERDICT}</member></EvaluationResults>",
    ),
    (
        "GetAccountSummary",
        GetAccountSummary(),
        "<SummaryMap><entry><key>Users</key><value>1</value></entry></SummaryMap>",
    ),
)
LEAVES = (
    *("UserName", "Path", "Arn", "UserId", "CreateDate", "AccessKeyId", "SecretAccessKey", "SessionToken"),
    *("Expiration", "Account", "EvalActionName", "EvalDecision", "PolicyDocument", "value"),
)


def spoiled(inner: str, leaf: str) -> Iterator[str]:
    """Write an answer with one field left out, empty, twice, of elements, or with what AWS doesn't write."""
    before, _, rest = inner.partition(f"<{leaf}>")
    text, _, after = rest.partition(f"</{leaf}>")
    wrong = ["", f"<{leaf}></{leaf}>", f"<{leaf}><x>{text}</x></{leaf}>", f"<{leaf}>ключ-{text}</{leaf}>"]
    if leaf == "PolicyDocument":  # any text may be one
        wrong = wrong[:1]
    if leaf not in ("PolicyDocument", "value"):  # the last of two entries of a map counts
        wrong += [f"<{leaf}>{text}</{leaf}>" * 2, f"<{leaf}>{text}&#27;[2J</{leaf}>"]
        wrong += [f"<{leaf}>{text}\n</{leaf}>"]
    for instead in wrong:
        yield before + instead + after


@pytest.mark.parametrize(("action", "call", "inner"), READ, ids=[one[0] for one in READ])
async def test_a_complete_answer_is_read(
    outcome: Outcome, action: str, call: Call[object], inner: str
) -> None:
    """The tests below remove something from these answers."""
    assert not isinstance(await outcome(result(action, inner), call), AwsError)


@pytest.mark.parametrize(("action", "call", "inner"), READ, ids=[one[0] for one in READ])
async def test_an_answer_with_a_missing_or_invalid_field_is_unreadable(
    outcome: Outcome, action: str, call: Call[object], inner: str
) -> None:
    leaves = [leaf for leaf in LEAVES if f"<{leaf}>" in inner]
    for leaf in ["Arn", "UserName"] if action == "CreateUser" else leaves:
        for wrong in spoiled(inner, leaf):
            error = await outcome(result(action, wrong), call)
            assert isinstance(error, AwsUnknown), wrong
            assert error.sent
            assert "not-a-secret" not in error.detail + repr(error)


OF_ANN = tuple((action, call, inner) for action, call, inner in READ if "<UserName>ann" in inner)
OF_SESSION = (
    "<{0}User><Arn>arn:aws:sts::123456789012:{1}</Arn></{0}User>" + f"<Credentials>{SESSION}</Credentials>"
)
OTHERS: tuple[tuple[str, Call[object], str, str], ...] = (
    *((*one, "ann") for one in OF_ANN if one[0] != "ListUsers"),
    *(
        (action, call, f"<{kind}><member><UserName>ann</UserName>{inner}</member></{kind}>", "ann")
        for action, call, kind, inner in (
            ("ListAccessKeys", ListAccessKeys("ann"), "AccessKeyMetadata", LISTED),
            ("ListAccessKeys", ListKeyDates("ann"), "AccessKeyMetadata", LISTED),
            ("ListMFADevices", ListMFADevices("ann"), "MFADevices", "<SerialNumber>s</SerialNumber>"),
        )
    ),
    *(
        (action, call, OF_SESSION.format("AssumedRole", "assumed-role/r/session"), name)
        for action, call in (
            ("AssumeRole", ROLE),
            ("AssumeRole", replace(ROLE, role_arn="arn:aws:iam::123456789012:role/a/path/r")),
            (
                "AssumeRoleWithWebIdentity",
                AssumeRoleWithWebIdentity(ROLE.role_arn, "session", 900, Secret("token")),
            ),
        )
        for name in ("session", "assumed-role/r", "123456789012")
    ),
    (
        "GetFederationToken",
        GetFederationToken("bob", 900),
        OF_SESSION.format("Federated", "federated-user/bob"),
        "bob",
    ),
)


@pytest.mark.parametrize(("action", "call", "inner", "name"), OTHERS, ids=[one[0] for one in OTHERS])
async def test_the_answer_to_a_call_for_another_user_is_unreadable(
    outcome: Outcome, action: str, call: Call[object], inner: str, name: str
) -> None:
    """The key of another user, perhaps of another account, must reach nobody."""
    assert not isinstance(await outcome(result(action, inner), call), AwsError)
    error = await outcome(result(action, inner.replace(name, f"{name}-2")), call)
    assert isinstance(error, AwsUnknown)
    assert error.sent
    assert "another call" in error.detail
    assert "not-a-secret" not in error.detail + repr(error)


async def test_a_listing_of_another_path_is_unreadable(outcome: Outcome) -> None:
    """Leases whose users it does not show are revoked."""
    inner = f"<Users><member>{USER.replace('<Path>/', '<Path>/lessor/a/')}</member></Users>"
    assert not isinstance(await outcome(result("ListUsers", inner), ListUsers("/lessor/a/")), AwsError)
    error = await outcome(result("ListUsers", inner), ListUsers("/lessor/b/"))
    assert isinstance(error, AwsUnknown)
    assert "another call" in error.detail


async def test_a_malformed_request_id_of_a_success_is_not_recorded(outcome: Outcome) -> None:
    noted = collect_request_ids()
    for said in ("a" * 65, "a/b", "a1-B2"):
        answer = result("GetUser", f"<User>{USER}</User>", said)
        assert not isinstance(await outcome(answer, GetUser("ann")), AwsError)
    assert noted == ["a1-B2"]


async def test_an_account_has_twelve_digits(outcome: Outcome) -> None:
    for account in ("", "1", "12345678901", "1234567890123", "12345678901x", "١٢٣٤٥٦٧٨٩٠١٢"):
        inner = IDENTITY.replace("<Account>123456789012", f"<Account>{account}")
        assert isinstance(await outcome(result("GetCallerIdentity", inner), GetCallerIdentity()), AwsUnknown)


async def test_an_answer_with_an_invalid_date_is_unreadable(outcome: Outcome) -> None:
    """AWS's clock is compared with the server's."""
    whole = result("GetCallerIdentity", IDENTITY)
    for date in ("rubbish", "Thu, 99 Jan 2025 00:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "-"):
        answer = whole.replace(b"Connection:", f"Date: {date}\r\nConnection:".encode())
        assert isinstance(await outcome(answer, GetServerTime()), AwsUnknown)
    answer = whole.replace(b"Connection:", b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection:")
    assert await outcome(answer, GetServerTime()) == 1_767_225_600 * 10**6


async def test_an_answer_with_an_invalid_expiration_is_unreadable(outcome: Outcome) -> None:
    """It becomes the expiry of a lease."""
    for instant in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-13-01", "1e400"):
        inner = f"<Credentials>{SESSION}</Credentials>".replace("2025-01-01T00:00:00Z", instant)
        assert isinstance(await outcome(result("GetSessionToken", inner), GetSessionToken(900)), AwsUnknown)
