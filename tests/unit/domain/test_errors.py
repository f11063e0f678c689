"""Checks that every error tells a person and a machine what it is, and whose turn it is."""

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
TOLD = {
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
def test_an_error_says_when_it_comes_and_how_to_mend_it(kind: type[LessorError]) -> None:
    """Each class has a docstring that is a sentence, a reason in capitals, and a mend in a person's words."""
    assert kind.__doc__
    assert kind.__doc__.strip().split("\n")[0].endswith(".")
    assert kind.reason
    assert kind.reason.isupper()
    assert kind.reason.replace("_", "").isalpha()
    assert len(kind.fix) > 8
    assert not kind.fix.endswith(".")


def test_no_two_errors_share_a_reason() -> None:
    """A machine tells every leaf by its reason; the two base classes have none of their own."""
    reasons = Counter(kind.reason for kind in ERRORS if kind.__name__ not in ("AwsError", "LessorError"))
    assert [reason for reason, count in reasons.items() if count > 1] == []


def test_violations_come_all_at_once() -> None:
    """``require`` raises with every violation, names the first in its message, and is silent without."""
    require([])
    found = [Violation("a", "is bad", "mend it"), Violation("", "is worse", "mend that")]
    with pytest.raises(Invalid, match="a: is bad; mend it") as told:
        require(found)
    assert told.value.violations == tuple(found)
    assert [violation.under("role").field for violation in found] == ["role.a", "role"]


def test_every_refusal_has_its_error() -> None:
    """The table below is about all refusals there are."""
    assert set(TOLD) == set(Refusal)


@pytest.mark.parametrize("refusal", Refusal, ids=lambda one: one.value)
def test_a_caller_hears_whose_turn_it_is(refusal: Refusal) -> None:
    """Each refusal becomes the error of who can mend it, and keeps AWS's answer."""
    told = for_caller(AwsRefused(ANSWER, refusal))
    assert type(told) is TOLD[refusal]
    assert told.aws == ANSWER
    assert told.detail == "some text"
    assert "some text" not in told.message


@pytest.mark.parametrize(
    ("code", "text", "told", "word"),
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
def test_the_fix_is_that_of_what_aws_refused(
    code: str, text: str, told: type[LessorError], word: str
) -> None:
    """One code of AWS stands for several causes; its text tells which."""
    refusal = Refusal.LIMIT if code == "LimitExceeded" else Refusal.DENIED
    found = for_caller(AwsRefused(AwsAnswer("PutUserPolicy", code, text, "req-1"), refusal))
    assert type(found) is told
    assert word in found.fix
    if told is not AwsQuota:
        assert "users" not in found.fix


def test_an_unknown_fate_is_unavailable_for_the_caller() -> None:
    """A lost answer asks the caller to come again; other errors are passed on as they are."""
    told = for_caller(AwsUnknown(ANSWER, sent=True))
    assert isinstance(told, AwsUnavailable)
    assert told.retry_in
    full = MountFull("full")
    assert for_caller(full) is full
    assert full.detail == ""
