"""Checks which calls make a user, take it back, and sweep what others hung on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lessor_server.domain.aws import iam_calls, plans
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.lease import Footprint
from tests.support import builders
from tests.unit.domain.test_lease import lease

FOOTPRINT = Footprint("aws:1", "u", "/lessor/x/", "lessor", ("arn:p", "arn:q"), ("g", "h"))
LISTINGS = plans.list_attachments("u")


def test_an_issue_makes_the_user_first_and_all_the_rest_at_once() -> None:
    """CreateUser carries path, boundary and tags; the second round holds what the footprint names."""
    role = builders.role(permissions_boundary_arn="arn:b")
    create = plans.create_user(role, FOOTPRINT, (("k", "v"),))
    assert create == iam_calls.CreateUser("u", "/lessor/x/", "arn:b", (("k", "v"),))
    assert plans.attach_all(role, FOOTPRINT) == (
        iam_calls.PutUserPolicy("u", "lessor", builders.DOCUMENT),
        iam_calls.AttachUserPolicy("u", "arn:p"),
        iam_calls.AttachUserPolicy("u", "arn:q"),
        iam_calls.AddUserToGroup("u", "g"),
        iam_calls.AddUserToGroup("u", "h"),
    )


def test_a_bare_role_needs_no_more_than_a_user_and_a_key() -> None:
    """Without policies and groups nothing else is sent."""
    assert plans.attach_all(builders.role(), Footprint("aws:1", "u", "/")) == ()


def test_what_an_issue_puts_on_a_revocation_takes_off() -> None:
    """Each call of the second round has its counterpart in the strip round, and no other is there."""
    assert plans.detach_all(FOOTPRINT) == (
        iam_calls.DeleteUserPolicy("u", "lessor"),
        iam_calls.DetachUserPolicy("u", "arn:p"),
        iam_calls.DetachUserPolicy("u", "arn:q"),
        iam_calls.RemoveUserFromGroup("u", "g"),
        iam_calls.RemoveUserFromGroup("u", "h"),
    )
    assert plans.detach_all(Footprint("aws:1", "u", "/")) == ()


def test_access_is_cut_by_the_stored_key_or_by_all_that_are_listed() -> None:
    """A row that knows its key deletes it; one that does not asks which there are."""
    known = lease()
    name = known.footprint.user_name
    assert plans.revoke_keys(known) == (iam_calls.DeleteAccessKey(name, "AKIA"),)
    assert plans.revoke_keys(replace(known, access_key_id="")) == (iam_calls.ListAccessKeys(name),)
    listed = plans.delete_keys("u", ("A", "B"))
    assert listed == (iam_calls.DeleteAccessKey("u", "A"), iam_calls.DeleteAccessKey("u", "B"))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda one: one.action)
def test_what_a_listing_finds_the_sweep_deletes(listing: Call[object]) -> None:
    """Each kind of thing that the survey lists has its own deletion, of this user and this name."""
    taken = plans.delete_attachments("u", ((listing, ("one", "two")),))
    assert taken[0] == iam_calls.DeleteLoginProfile("u")
    assert [call.user for call in taken] == ["u"] * 3
    assert taken[1] != taken[2]
    assert taken[1].action.startswith(("Delete", "Detach", "Remove", "Deactivate"))


def test_the_survey_s_kinds_are_deleted_by_different_calls() -> None:
    """No listing is mistaken for another."""
    kinds = {type(plans.delete_attachments("u", ((listing, ("one",)),))[1]) for listing in LISTINGS}
    assert len(kinds) == len(LISTINGS) == 8


def test_our_tags_stand_beside_the_role_s() -> None:
    """A user carries the role's tags and the three by which it is known to be ours."""
    tags = plans.tags_of("abc", "aws/creds/app/x", builders.role(iam_tags=(("team", "a"),)))
    assert tags == (
        ("team", "a"),
        ("lessor:instance", "abc"),
        ("lessor:lease", "aws/creds/app/x"),
        ("lessor:role", "app"),
    )
