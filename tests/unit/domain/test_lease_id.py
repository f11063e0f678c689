"""Checks lease ids, id ranges, and names of mounts, roles and users."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain import user_names
from lessor_server.domain.base62 import BASE62
from lessor_server.domain.errors.base import Invalid, shown
from lessor_server.domain.lease_id import (
    RANDOM_BOUND,
    IdRange,
    LeaseId,
    is_suffix,
    name_violations,
    suffix_of,
)

NAMES = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", fullmatch=True)
SUFFIXES = st.text(alphabet=BASE62, min_size=24, max_size=24)
TIMES = st.integers(min_value=0, max_value=62**7 - 1)
NUMBERS = st.integers(min_value=0, max_value=RANDOM_BOUND - 1)
PIECES = st.sampled_from(["{{mount}}", "{{ role }}", "team-", "x/y ", "é", "-"])
SUFFIX = "0abcDEF0123456789abcdefG"


@pytest.mark.parametrize("text", ["a", "_", "aws", "a.b", "a..b", "A-9", "x" * 64])
def test_a_name_of_allowed_characters_is_valid(text: str) -> None:
    assert name_violations("mount", text) == []


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "a-", "a.", "a/b", "a b", "a\n", "é", "x" * 65, "a@b"])
def test_any_other_name_is_invalid(text: str) -> None:
    """It could be taken for a path, or hide characters."""
    (violation,) = name_violations("mount", text)
    assert violation.field == "mount"


def test_a_callers_text_is_cut_to_64_characters_on_one_line() -> None:
    assert shown("x" * 65) == '"' + "x" * 63 + '…"'
    assert len(shown("x" * 10_000)) == 64 + len('""')
    assert "\n" not in shown("a\nb")


@given(NAMES, NAMES, SUFFIXES)
def test_a_lease_id_round_trips(mount: str, role: str, suffix: str) -> None:
    lease_id = LeaseId(mount, role, suffix)
    assert LeaseId.parse(str(lease_id)) == lease_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aws/creds/app",
        "aws/creds/app/",
        f"aws/creds/app/{SUFFIX[:-1]}",
        f"aws/creds/app/{SUFFIX}0",
        f"aws/creds/app/{SUFFIX}\n",
        f"aws/leases/app/{SUFFIX}",
        f"../creds/app/{SUFFIX}",
        f"aws/creds/app/x/{SUFFIX}",
        f"/aws/creds/app/{SUFFIX}",
    ],
)
def test_a_malformed_lease_id_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        LeaseId.parse(text, "lease_id")
    assert [violation.field for violation in caught.value.violations] == ["lease_id"]


@pytest.mark.parametrize("text", ["aws/", "aws/creds/", "aws/creds/app/", f"aws/creds/app/{SUFFIX}"])
def test_a_prefix_of_the_four_shapes_covers_a_lease_below_it(text: str) -> None:
    ids = IdRange.parse(text)
    assert (ids.low, ids.mount) == (text, "aws")
    assert ids.covers(f"aws/creds/app/{SUFFIX}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "aws",
        "aws//",
        "aws/creds",
        "aws/creds/app",
        "aws/creds/../",
        "aws/roles/",
        f"aws/creds/a/{SUFFIX}x",
        "%/",
    ],
)
def test_a_malformed_prefix_is_refused(text: str) -> None:
    """A typo must not widen a prefix."""
    with pytest.raises(Invalid):
        IdRange.parse(text)


@pytest.mark.parametrize("text", ["aws", "aws/creds", "aws/creds/app"])
def test_a_prefix_without_its_slash_is_refused_with_the_right_one(text: str) -> None:
    """Vault takes it, but it would also match a mount or role whose name begins the same."""
    with pytest.raises(Invalid, match=rf"write {text}/$"):
        IdRange.parse(text)


@given(NAMES, NAMES, NAMES, NAMES, SUFFIXES)
def test_a_prefix_covers_exactly_what_begins_with_it(
    mount: str, role: str, other_mount: str, other_role: str, suffix: str
) -> None:
    lease_id = str(LeaseId(other_mount, other_role, suffix))
    for text in (f"{mount}/", f"{mount}/creds/", f"{mount}/creds/{role}/"):
        assert IdRange.parse(text).covers(lease_id) == lease_id.startswith(text)


@given(SUFFIXES, SUFFIXES)
def test_a_whole_lease_id_covers_only_itself(one: str, other: str) -> None:
    prefix = IdRange.parse(f"aws/creds/app/{one}")
    assert prefix.covers(f"aws/creds/app/{other}") == (one == other)


@given(TIMES, NUMBERS, TIMES, NUMBERS)
def test_suffixes_sort_by_time(time: int, number: int, other_time: int, other_number: int) -> None:
    one, other = suffix_of(time, number), suffix_of(other_time, other_number)
    assert (one < other) == ((time, number) < (other_time, other_number))
    assert (one == other) == ((time, number) == (other_time, other_number))
    assert is_suffix(one)


@pytest.mark.parametrize("number", [-1, RANDOM_BOUND])
def test_a_suffix_out_of_range_raises(number: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        suffix_of(0, number)


@pytest.mark.parametrize(("time", "taken"), [(-1, 0), (62**7, 62**7 - 1), (10**15, 62**7 - 1)])
def test_a_time_out_of_range_is_clamped(time: int, taken: int) -> None:
    """So a clock that is centuries ahead fails no issue and no reconcile run."""
    assert suffix_of(time, 7) == suffix_of(taken, 7)


@given(NAMES, NAMES, SUFFIXES)
def test_a_user_name_fits_iam_and_keeps_the_whole_suffix(mount: str, role: str, suffix: str) -> None:
    name = user_names.user_name("", mount, role, suffix)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{1,64}", name)
    assert name.startswith("lessor-")
    assert name.endswith("-" + suffix)


@given(st.lists(PIECES, max_size=20), st.lists(PIECES, max_size=3), NAMES, NAMES, SUFFIXES)
def test_a_valid_template_keeps_twelve_random_characters(
    before: list[str], after: list[str], mount: str, role: str, suffix: str
) -> None:
    template = "".join(before) + "{{suffix}}" + "".join(after)
    if user_names.template_violations("username_template", template):
        return
    name = user_names.user_name(template, mount, role, suffix)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{12,64}", name)
    assert suffix[-user_names.MIN_RANDOM :] in name


def test_long_mount_and_role_names_share_the_remaining_length() -> None:
    assert user_names.user_name("", "aws", "r" * 64, SUFFIX) == f"lessor-aws-{'r' * 28}-{SUFFIX}"
    assert user_names.user_name("", "m" * 64, "r" * 64, SUFFIX) == f"lessor-{'m' * 15}-{'r' * 16}-{SUFFIX}"


def test_a_template_defines_the_name() -> None:
    """A character that IAM does not allow becomes ``_``."""
    assert user_names.user_name("ci/{{role}}+{{suffix}}.x", "aws", "app", SUFFIX) == f"ci_app+{SUFFIX}.x"


def test_each_caller_has_its_own_name_under_a_template_of_identities() -> None:
    template = "{{identity.name}}-{{suffix}}-{{role}}"
    names = [
        user_names.user_name(template, "aws", "app", SUFFIX, {"identity.name": caller}.__getitem__)
        for caller in ("alice", "bob", "alice")
    ]
    assert names == [f"alice-{SUFFIX}-app", f"bob-{SUFFIX}-app", f"alice-{SUFFIX}-app"]


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("x-{{role}}", "exactly once"),
        ("{{suffix}}{{suffix}}", "exactly once"),
        ("{{suffix}}-{{team}}", "not a field"),
        ("{{suffix}}-{{", "braces"),
        ("{{suffix}}-{{Role}}", "not a field"),
        ("{{suffix}}-{{Role}", "braces"),
        ("{{suffix}}-{{identity.labels.}}", "not a field"),
        ("x" * 53 + "{{suffix}}", "no room"),
    ],
)
def test_a_template_that_cannot_name_users_is_refused(template: str, fault: str) -> None:
    (violation,) = user_names.template_violations("username_template", template)
    assert violation.field == "username_template"
    assert fault in violation.problem


def test_all_violations_of_a_template_are_reported() -> None:
    assert len(user_names.template_violations("username_template", "x" * 60 + "{{team}}")) == 3


@pytest.mark.parametrize("template", ["", user_names.DEFAULT_TEMPLATE, "{{suffix}}", "x" * 52 + "{{suffix}}"])
def test_a_template_with_twelve_random_characters_is_valid(template: str) -> None:
    assert user_names.template_violations("username_template", template) == []


def test_a_federated_sessions_name_fits_32_characters() -> None:
    made = user_names.federation_name("", "aws", "app", SUFFIX)
    assert made == f"lessor-{SUFFIX}"
    assert len(made) <= 32


def test_a_short_template_names_federated_sessions_too() -> None:
    """A template that leaves too little room for the random characters is not used."""
    assert (
        user_names.federation_name("ci-{{role}}-{{suffix}}", "aws", "application", SUFFIX)
        == f"ci-appl-{SUFFIX}"
    )
    assert user_names.federation_name("x" * 20 + "{{suffix}}", "aws", "app", SUFFIX) == f"lessor-{SUFFIX}"


def test_a_name_may_have_fields_of_the_caller() -> None:
    who = {"identity.name": "spiffe://x/alice", "identity.labels.team": "blue"}
    made = user_names.user_name(
        "{{identity.name}}-{{identity.labels.team}}-{{suffix}}", "m", "r", SUFFIX, who.__getitem__
    )
    assert made == f"spiffe___x_alice-blue-{SUFFIX}"
    long = user_names.user_name("{{identity.name}}-{{suffix}}", "m", "r", SUFFIX, lambda _: "a" * 100)
    assert (len(long), long.endswith(SUFFIX)) == (64, True)


@pytest.mark.parametrize(
    ("path", "whole"), [("", "/lessor/i/"), ("/", "/lessor/i/"), ("/ci/", "/lessor/i/ci/")]
)
def test_a_user_path_is_below_the_path_of_the_instance(path: str, whole: str) -> None:
    assert user_names.user_path("i", path) == whole
