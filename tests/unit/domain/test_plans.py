"""Checks which calls create a user, delete it, and delete what others attached to it."""

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


def test_an_issue_creates_the_user_and_then_all_else_in_one_round() -> None:
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
    assert plans.attach_all(builders.role(), Footprint("aws:1", "u", "/")) == ()


def test_a_revocation_removes_exactly_what_an_issue_attached() -> None:
    assert plans.detach_all(FOOTPRINT) == (
        iam_calls.DeleteUserPolicy("u", "lessor"),
        iam_calls.DetachUserPolicy("u", "arn:p"),
        iam_calls.DetachUserPolicy("u", "arn:q"),
        iam_calls.RemoveUserFromGroup("u", "g"),
        iam_calls.RemoveUserFromGroup("u", "h"),
    )
    assert plans.detach_all(Footprint("aws:1", "u", "/")) == ()


def test_the_stored_key_is_deleted_or_all_keys_are_listed() -> None:
    known = lease()
    name = known.footprint.user_name
    assert plans.revoke_keys(known) == (iam_calls.DeleteAccessKey(name, "AKIA"),)
    assert plans.revoke_keys(replace(known, access_key_id="")) == (iam_calls.ListAccessKeys(name),)
    listed = plans.delete_keys("u", ("A", "B"))
    assert listed == (iam_calls.DeleteAccessKey("u", "A"), iam_calls.DeleteAccessKey("u", "B"))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda one: one.action)
def test_each_kind_of_listed_item_has_its_deletion(listing: Call[object]) -> None:
    taken = plans.delete_attachments("u", ((listing, ("one", "two")),))
    assert taken[0] == iam_calls.DeleteLoginProfile("u")
    assert [call.user for call in taken] == ["u"] * 3
    assert taken[1] != taken[2]
    assert taken[1].action.startswith(("Delete", "Detach", "Remove", "Deactivate"))


def test_each_kind_of_listed_item_is_deleted_by_another_call() -> None:
    kinds = {type(plans.delete_attachments("u", ((listing, ("one",)),))[1]) for listing in LISTINGS}
    assert len(kinds) == len(LISTINGS) == 8


def test_a_user_has_the_role_s_tags_and_ours() -> None:
    tags = plans.tags_of("abc", "aws/creds/app/x", builders.role(iam_tags=(("team", "a"),)))
    assert tags == (
        ("team", "a"),
        ("lessor:instance", "abc"),
        ("lessor:lease", "aws/creds/app/x"),
        ("lessor:role", "app"),
    )
