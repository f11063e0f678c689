"""Checks that every error has a reason, a message and a fix, and who can fix it."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import pytest

import lessor_server
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal, for_caller
from lessor_server.domain.errors.base import (
    AwsAnswer,
    AwsQuota,
    AwsUnavailable,
    Invalid,
    LessorError,
    MountFull,
    Violation,
    require,
)
from lessor_server.domain.errors.preconditions import (
    ClockRefused,
    PolicyTooLarge,
    RoleNotUsable,
    RootRefused,
    SessionTooLarge,
    SessionTooLong,
)

ANSWER = AwsAnswer("PutUserPolicy", "SomeCode", "some text", "req-1")
ERROR_OF = {
    Refusal.LIMIT: AwsQuota,
    Refusal.DENIED: RootRefused,
    Refusal.MALFORMED: RoleNotUsable,
    Refusal.NO_SUCH_OTHER: RoleNotUsable,
    Refusal.THROTTLED: AwsUnavailable,
    Refusal.CONCURRENT: AwsUnavailable,
    Refusal.NO_SUCH_USER: AwsUnavailable,
    Refusal.ALREADY_EXISTS: AwsRefused,
    Refusal.DELETE_CONFLICT: AwsRefused,
    Refusal.TOO_LONG: SessionTooLong,
    Refusal.TOO_LARGE: SessionTooLarge,
    Refusal.OTHER: AwsRefused,
}


def all_errors() -> list[type[LessorError]]:
    """Return every error class of the server, after importing all of it."""
    for module in pkgutil.walk_packages(lessor_server.__path__, "lessor_server."):
        importlib.import_module(module.name)
    found: list[type[LessorError]] = []
    rest: list[type[LessorError]] = [LessorError]
    while rest:
        kind = rest.pop()
        found.append(kind)
        rest += kind.__subclasses__()
    return sorted(set(found), key=lambda kind: kind.__name__)


ERRORS = all_errors()


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_class_has_a_docstring_a_reason_and_a_fix(kind: type[LessorError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.strip().split("\n")[0].endswith(".")
    assert kind.reason
    assert kind.reason.isupper()
    assert kind.reason.replace("_", "").isalpha()
    assert len(kind.fix) > 8
    assert not kind.fix.endswith(".")


def test_no_two_errors_share_a_reason() -> None:
    """Only the two base classes have no reason."""
    reasons = Counter(kind.reason for kind in ERRORS if kind.__name__ not in ("AwsError", "LessorError"))
    assert [reason for reason, count in reasons.items() if count > 1] == []


def test_require_raises_with_all_violations() -> None:
    require([])
    found = [Violation("a", "is bad", "fix it"), Violation("", "is worse", "fix that")]
    with pytest.raises(Invalid, match="a: is bad; fix it") as raised:
        require(found)
    assert raised.value.violations == tuple(found)
    assert [violation.under("role").field for violation in found] == ["role.a", "role"]


def test_every_refusal_is_in_the_table_of_errors() -> None:
    assert set(ERROR_OF) == set(Refusal)


@pytest.mark.parametrize("code", ["NoCredentialsError", "PartialCredentialsError"])
def test_a_server_without_credentials_of_its_own_has_no_key_to_check(code: str) -> None:
    answer = for_caller(AwsRefused(AwsAnswer("CreateUser", code), Refusal.DENIED))
    assert answer.reason == "ROOT_REFUSED"
    assert "credentials of its own" in answer.fix


@pytest.mark.parametrize("refusal", Refusal, ids=lambda one: one.value)
def test_each_refusal_becomes_the_error_of_who_can_fix_it(refusal: Refusal) -> None:
    answer = for_caller(AwsRefused(ANSWER, refusal))
    assert type(answer) is ERROR_OF[refusal]
    assert answer.aws == ANSWER
    assert answer.detail == "some text"
    assert "some text" not in answer.message


@pytest.mark.parametrize(
    ("code", "text", "expected", "word"),
    [
        ("LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user x", PolicyTooLarge, "shorten"),
        ("LimitExceeded", "Cannot exceed quota for PolicySize: 6144", PolicyTooLarge, "shorten"),
        ("LimitExceeded", "Cannot exceed quota for PoliciesPerUser: 10", RoleNotUsable, "policy_arns"),
        ("LimitExceeded", "Cannot exceed quota for GroupsPerUser: 10", RoleNotUsable, "iam_groups"),
        ("LimitExceeded", "Cannot exceed quota for UsersPerAccount: 5000", AwsQuota, "raised"),
        ("RequestExpired", "Request has expired.", ClockRefused, "clock"),
        ("RequestTimeTooSkewed", "", ClockRefused, "clock"),
        (
            "SignatureDoesNotMatch",
            "Signature expired: 20261128T200000Z is now earlier than 20261128T210000Z",
            ClockRefused,
            "clock",
        ),
        (
            "SignatureDoesNotMatch",
            "Signature not yet current: 20261128T220000Z is still later than",
            ClockRefused,
            "clock",
        ),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match", RootRefused, "key"),
    ],
)
def test_the_fix_depends_on_the_text_of_aws(
    code: str, text: str, expected: type[LessorError], word: str
) -> None:
    """One code of AWS may have several causes."""
    refusal = Refusal.LIMIT if code == "LimitExceeded" else Refusal.DENIED
    found = for_caller(AwsRefused(AwsAnswer("PutUserPolicy", code, text, "req-1"), refusal))
    assert type(found) is expected
    assert word in found.fix
    if expected is not AwsQuota:
        assert "users" not in found.fix


def test_an_unknown_outcome_is_unavailable_for_the_caller() -> None:
    answer = for_caller(AwsUnknown(ANSWER, sent=True))
    assert isinstance(answer, AwsUnavailable)
    assert answer.retry_in
    full = MountFull("full")
    assert for_caller(full) is full
    assert full.detail == ""
