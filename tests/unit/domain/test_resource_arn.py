"""Checks the errors of a ``Resource`` that IAM refuses."""

from __future__ import annotations

import pytest

from lessor_server.domain.aws import resource_arn


@pytest.mark.parametrize(
    "resource",
    [
        "arn:aws:iam::${aws:PrincipalAccount}:role/app",
        "arn:aws:iam:${aws:RequestedRegion}:123456789012:user/app",
    ],
)
def test_a_variable_outside_the_last_part_of_an_arn_is_named_as_the_cause(resource: str) -> None:
    """The part after the colon in it is not taken for an IAM resource type."""
    problem = resource_arn.problem(resource)
    assert problem == "has a policy variable in its region or account; only its last part may have one"


@pytest.mark.parametrize(
    "resource",
    ["arn:aws:iam::123456789012:user/${aws:username}", "arn:aws:iam::123456789012:${aws:PrincipalTag/kind}"],
)
def test_a_variable_in_the_last_part_of_an_arn_passes(resource: str) -> None:
    assert resource_arn.problem(resource) == ""


def test_a_type_that_iam_does_not_have_is_still_the_cause_without_a_variable() -> None:
    assert "type of IAM resource" in resource_arn.problem("arn:aws:iam::123456789012:rolle/app")
