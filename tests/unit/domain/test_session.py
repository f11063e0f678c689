"""Checks the options of a request for a session, and the STS call of each role type."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lessor_server.domain.aws.sts_calls import AssumeRole, Device, GetFederationToken, GetSessionToken
from lessor_server.domain.errors.base import Invalid, SessionPolicyWouldWiden, Violation
from lessor_server.domain.errors.preconditions import NoSessionPolicy, SessionTooLarge, TemplateValueUnsafe
from lessor_server.domain.policy import policy, session
from lessor_server.domain.policy.policy_merge import GroupPolicies
from lessor_server.domain.policy.session import NO_OPTIONS, SessionInputs, SessionOptions
from lessor_server.domain.policy.template import identity_fields
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.secret import Secret

ROLE_ARN = "arn:aws:iam::123456789012:role/app"
OTHER_ARN = "arn:aws:iam::123456789012:role/other"
POLICY_ARN = "arn:aws:iam::123456789012:policy/p"
SERIAL = "arn:aws:iam::123456789012:mfa/root"
USER, ASSUMED, FEDERATED, SESSION = CredentialType
SUFFIX = "0" * 7 + "R" * 17


def document(effect: str, action: str = "s3:Get*") -> str:
    """Return a policy of one statement."""
    statement: policy.JsonValue = {"Effect": effect, "Action": action, "Resource": "*"}
    return policy.canonical({"Version": "2012-10-17", "Statement": [statement]})


ALLOW, DENY = document("Allow"), document("Deny", "s3:GetObjectAcl")
ROLES = {
    USER: Role("aws", "app", USER, policy_document=ALLOW),
    ASSUMED: Role("aws", "app", ASSUMED, role_arns=(ROLE_ARN,)),
    FEDERATED: Role("aws", "app", FEDERATED, policy_document=ALLOW),
    SESSION: Role("aws", "app", SESSION),
}


def role(kind: CredentialType = ASSUMED, **changes: Any) -> Role:
    """Return a role of ``kind`` with changes."""
    return replace(ROLES[kind], **changes)


def code(text: str = "123456") -> Secret:
    """Return an MFA code."""
    return Secret(text)


def fields(subject: Role, **asked: Any) -> list[str]:
    """Return the fields in which a request is wrong."""
    return [violation.field for violation in session.violations(subject, SessionOptions(**asked))]


def made(
    subject: Role, *, caller: str = "alice", groups: tuple[GroupPolicies, ...] = (), **asked: Any
) -> Any:
    """Return the call that a role and a request make."""
    making = SessionInputs(identity_fields(caller, {"team": "blue"}), groups, "name", 900)
    return session.call(subject, SessionOptions(**asked), making)


@pytest.mark.parametrize("kind", CredentialType)
@pytest.mark.parametrize(
    ("field", "asked", "kinds"),
    [
        ("role_arn", {"role_arn": ROLE_ARN}, {ASSUMED}),
        ("role_session_name", {"session_name": "alice"}, {ASSUMED}),
        ("mfa_code", {"mfa_code": code()}, {ASSUMED, SESSION}),
        ("session_policy", {"policy": DENY}, {ASSUMED, FEDERATED}),
    ],
)
def test_an_option_is_refused_with_any_other_type(
    kind: CredentialType, field: str, asked: dict[str, Any], kinds: set[CredentialType]
) -> None:
    subject = role(kind, mfa_serial_number=SERIAL if "mfa_code" in asked and kind in kinds else "")
    assert fields(subject, **asked) == ([] if kind in kinds else [field])


def test_all_violations_of_a_request_are_reported() -> None:
    subject = role(mfa_serial_number=SERIAL)
    ask = SessionOptions("nope", "a b", code("12"), policy.canonical({"Statement": []}))
    with pytest.raises(Invalid) as raised:
        session.require_valid_options(subject, ask, [Violation("ttl", "is short", "give more")])
    answer = [violation.field for violation in raised.value.violations]
    assert answer == ["ttl", "role_arn", "role_session_name", "mfa_code", "session_policy.Statement"]


def test_a_template_in_the_policy_of_a_request_is_refused() -> None:
    """Nothing fills it in, so a Deny would not match."""
    denied = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::home/{{identity.name}}/*"}
    asked = policy.canonical({"Version": "2012-10-17", "Statement": [denied]})
    assert fields(role(), policy=asked) == ["session_policy.Statement[0].Resource"]


@pytest.mark.parametrize(
    ("allowed", "asked", "fine"),
    [
        ((ROLE_ARN,), "", True),
        ((ROLE_ARN,), ROLE_ARN, True),
        ((ROLE_ARN,), OTHER_ARN, False),
        ((ROLE_ARN, OTHER_ARN), "", False),
        ((ROLE_ARN, OTHER_ARN), OTHER_ARN, True),
        ((f"{ROLE_ARN}-*",), "", False),
        ((f"{ROLE_ARN}-*",), f"{ROLE_ARN}-x", True),
        ((f"{ROLE_ARN}-*",), f"{ROLE_ARN}-*", False),
        ((f"{ROLE_ARN}-*",), f"{ROLE_ARN}-x/y", False),
        (("arn:aws:iam::123456789012:role/team/*",), "arn:aws:iam::123456789012:role/team/a/b", False),
        (("arn:aws:iam::123456789012:role/*",), "arn:aws:iam::123456789012:role/team/a", False),
    ],
)
def test_a_request_names_a_role_that_is_allowed(allowed: tuple[str, ...], asked: str, fine: bool) -> None:
    assert fields(role(role_arns=allowed), role_arn=asked) == ([] if fine else ["role_arn"])


@pytest.mark.parametrize(("name", "fine"), [("ab", True), ("a" * 64, True), ("a", False), ("a" * 65, False)])
def test_a_session_name_is_valid_for_aws(name: str, fine: bool) -> None:
    assert fields(role(), session_name=name) == ([] if fine else ["role_session_name"])
    assert fields(role(), session_name=f"{name[:-1]}/") == ["role_session_name"]


@pytest.mark.parametrize("kind", [ASSUMED, SESSION])
def test_an_mfa_code_is_required_exactly_where_the_role_has_a_serial_number(kind: CredentialType) -> None:
    asking = role(kind, mfa_serial_number=SERIAL)
    assert fields(asking, mfa_code=code()) == []
    assert fields(role(kind)) == []
    for wrong in ("", "12345", "1234567", "12345a", "١٢٣٤٥٦"):
        (violation,) = session.violations(asking, SessionOptions(mfa_code=code(wrong)))
        assert violation.field == "mfa_code"
        assert not wrong or wrong not in violation.problem + violation.fix
    assert fields(role(kind), mfa_code=code()) == ["mfa_code"]


@pytest.mark.parametrize(
    "bounds", [{"policy_document": ALLOW}, {"policy_arns": (POLICY_ARN,)}, {"iam_groups": ("staff",)}]
)
def test_a_request_may_narrow_and_never_widen(bounds: dict[str, Any]) -> None:
    """An Allow of the request would be united with the role's policy."""
    with pytest.raises(SessionPolicyWouldWiden) as raised:
        session.require_valid_options(role(**bounds), SessionOptions(policy=ALLOW), [])
    assert [violation.field for violation in raised.value.violations] == ["session_policy"]
    session.require_valid_options(role(**bounds), SessionOptions(policy=DENY), [])


def test_without_a_role_policy_the_request_s_policy_is_sent() -> None:
    session.require_valid_options(role(), SessionOptions(policy=ALLOW), [])
    assert made(role(), policy=ALLOW).policy == ALLOW


def test_a_request_s_deny_is_added_to_the_role_s_policies() -> None:
    group = GroupPolicies((document("Allow", "sqs:*"),), (POLICY_ARN,))
    call = made(role(policy_document=ALLOW, policy_arns=(POLICY_ARN,)), groups=(group,), policy=DENY)
    statements = json.loads(call.policy)["Statement"]
    assert [(one["Effect"], one["Action"]) for one in statements] == [
        ("Allow", ["s3:Get*"]),
        ("Allow", ["sqs:*"]),
        ("Deny", ["s3:GetObjectAcl"]),
    ]
    assert call.policy_arns == (POLICY_ARN,)


def test_a_request_can_narrow_what_managed_policies_allow() -> None:
    """The Deny is then the only document."""
    call = made(role(policy_arns=(POLICY_ARN,)), policy=DENY)
    assert (call.policy, call.policy_arns) == (DENY, (POLICY_ARN,))


def test_assume_role_has_all_options_of_role_request_and_caller() -> None:
    subject = role(
        session_tags=(("team", "{{identity.labels.team}}"), ("who", "{{identity.name}}")),
        transitive_tag_keys=("team",),
        source_identity="{{identity.name}}",
        external_id="partner",
        mfa_serial_number=SERIAL,
    )
    assert made(subject, mfa_code=code()) == AssumeRole(
        role_arn=ROLE_ARN,
        session_name="name",
        seconds=900,
        tags=(("team", "blue"), ("who", "alice")),
        transitive_keys=("team",),
        source_identity="alice",
        external_id="partner",
        device=Device(SERIAL, code()),
    )
    assert made(role(role_arns=(ROLE_ARN, OTHER_ARN)), role_arn=OTHER_ARN).role_arn == OTHER_ARN


def test_the_other_two_types_have_calls_of_their_own() -> None:
    federated = role(FEDERATED, session_tags=(("who", "{{identity.name}}"),))
    assert made(federated) == GetFederationToken("name", 900, ALLOW, (), (("who", "alice"),))
    assert made(role(SESSION)) == GetSessionToken(900)
    mfa = role(SESSION, mfa_serial_number=SERIAL)
    assert made(mfa, mfa_code=code()) == GetSessionToken(900, Device(SERIAL, code()))


def test_a_federated_session_without_any_policy_is_refused() -> None:
    """It could do nothing."""
    subject = role(FEDERATED, policy_document="", iam_groups=("empty",))
    with pytest.raises(NoSessionPolicy):
        made(subject, groups=(GroupPolicies(),))
    assert made(subject, groups=(GroupPolicies(arns=(POLICY_ARN,)),)).policy_arns == (POLICY_ARN,)


def test_an_assumed_role_whose_groups_have_no_policy_is_refused() -> None:
    """Without a session policy it would have all permissions of the role."""
    subject = role(iam_groups=("empty",))
    with pytest.raises(NoSessionPolicy):
        made(subject, groups=(GroupPolicies(),))
    bounded = made(subject, groups=(GroupPolicies((ALLOW,)),))
    assert isinstance(bounded, AssumeRole)
    assert bounded.policy == ALLOW


def test_policies_are_sent_only_where_they_fit() -> None:
    ten = tuple(f"{POLICY_ARN}{number}" for number in range(10))
    with pytest.raises(SessionTooLarge):
        made(role(policy_arns=ten), groups=(GroupPolicies(arns=(POLICY_ARN,)),))


@pytest.mark.parametrize("place", ["session_tags", "source_identity"])
def test_an_invalid_tag_or_source_identity_of_the_caller_is_refused(place: str) -> None:
    value: Any = "{{identity.name}}"
    changes = {place: (("who", value),) if place == "session_tags" else value}
    with pytest.raises(TemplateValueUnsafe):
        made(role(**changes), caller="a*b")


def test_a_policy_is_filled_in_from_the_caller_and_a_requests_is_not() -> None:
    mine = policy.canonical(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::b/{{identity.name}}"}],
        }
    )
    call = made(role(policy_document=mine), policy=mine)
    own, asked = json.loads(call.policy)["Statement"]
    assert own["Resource"] == ["arn:aws:s3:::b/alice"]
    assert asked["Resource"] == ["arn:aws:s3:::b/{{identity.name}}"]


def test_a_session_is_named_by_the_request_or_the_template() -> None:
    alice = identity_fields("alice", {})
    assert session.name(role(), SessionOptions(session_name="mine"), "", SUFFIX, alice) == "mine"
    assert session.name(role(), NO_OPTIONS, "", SUFFIX, alice) == f"lessor-aws-app-{SUFFIX}"
    template = "{{identity.name}}-{{suffix}}"
    assert session.name(role(), NO_OPTIONS, template, SUFFIX, alice) == f"alice-{SUFFIX}"
    assert session.name(role(FEDERATED), NO_OPTIONS, "", SUFFIX, alice) == f"lessor-{SUFFIX}"
