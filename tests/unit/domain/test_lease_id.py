"""Checks names: of mounts and roles, lease ids, prefixes, and users on AWS."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain import user_names
from lessor_server.domain.errors.base import Invalid, shown
from lessor_server.domain.lease_id import (
    BASE62,
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
def test_a_name_of_the_allowed_characters_is_a_name(text: str) -> None:
    """One to 64 letters, digits, underscores, dots and hyphens make a name."""
    assert name_violations("mount", text) == []


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "a-", "a.", "a/b", "a b", "a\n", "é", "x" * 65, "a@b"])
def test_anything_else_is_no_name(text: str) -> None:
    """A name that could be mistaken for a path, or that hides characters, is refused."""
    (violation,) = name_violations("mount", text)
    assert violation.field == "mount"


def test_a_callers_text_is_cut_to_64_characters_on_one_line() -> None:
    """A message never repeats more than 64 characters of a caller, nor a line end of his."""
    assert shown("x" * 65) == '"' + "x" * 63 + '…"'
    assert len(shown("x" * 10_000)) == 64 + len('""')
    assert "\n" not in shown("a\nb")


@given(NAMES, NAMES, SUFFIXES)
def test_a_lease_id_round_trips(mount: str, role: str, suffix: str) -> None:
    """What a lease id prints, it reads back."""
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
def test_another_shape_is_no_lease_id(text: str) -> None:
    """An id of another shape is refused under the field that held it."""
    with pytest.raises(Invalid) as caught:
        LeaseId.parse(text, "lease_id")
    assert [violation.field for violation in caught.value.violations] == ["lease_id"]


@pytest.mark.parametrize("text", ["aws/", "aws/creds/", "aws/creds/app/", f"aws/creds/app/{SUFFIX}"])
def test_a_prefix_of_the_four_shapes_covers_a_lease_below_it(text: str) -> None:
    """Each shape of a prefix is read, and covers the lease it names."""
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
def test_another_shape_is_no_prefix(text: str) -> None:
    """A prefix that a slip of the pen could widen is refused, the empty one too."""
    with pytest.raises(Invalid):
        IdRange.parse(text)


@pytest.mark.parametrize("text", ["aws", "aws/creds", "aws/creds/app"])
def test_a_prefix_without_its_slash_is_refused_with_the_right_one(text: str) -> None:
    """Vault takes it so; here it could reach into another mount or role whose name begins the same."""
    with pytest.raises(Invalid, match=rf"write {text}/$"):
        IdRange.parse(text)


@given(NAMES, NAMES, NAMES, NAMES, SUFFIXES)
def test_a_prefix_covers_exactly_what_begins_with_it(
    mount: str, role: str, other_mount: str, other_role: str, suffix: str
) -> None:
    """The range of a prefix holds the ids that begin with it, and no others."""
    lease_id = str(LeaseId(other_mount, other_role, suffix))
    for text in (f"{mount}/", f"{mount}/creds/", f"{mount}/creds/{role}/"):
        assert IdRange.parse(text).covers(lease_id) == lease_id.startswith(text)


@given(SUFFIXES, SUFFIXES)
def test_a_whole_lease_id_covers_itself_alone(one: str, other: str) -> None:
    """A prefix that is a whole lease id names one lease."""
    prefix = IdRange.parse(f"aws/creds/app/{one}")
    assert prefix.covers(f"aws/creds/app/{other}") == (one == other)


@given(TIMES, NUMBERS, TIMES, NUMBERS)
def test_suffixes_sort_by_time(time: int, number: int, other_time: int, other_number: int) -> None:
    """Of two suffixes the earlier one is the lesser text, and equal ones have equal parts."""
    one, other = suffix_of(time, number), suffix_of(other_time, other_number)
    assert (one < other) == ((time, number) < (other_time, other_number))
    assert (one == other) == ((time, number) == (other_time, other_number))
    assert is_suffix(one)


@pytest.mark.parametrize("number", [-1, RANDOM_BOUND])
def test_a_suffix_out_of_range_is_a_defect(number: int) -> None:
    """A number that does not fit its digits raises and never wraps around."""
    with pytest.raises(ValueError, match="does not fit"):
        suffix_of(0, number)


@pytest.mark.parametrize(("time", "taken"), [(-1, 0), (62**7, 62**7 - 1), (10**15, 62**7 - 1)])
def test_a_time_that_fits_no_suffix_counts_as_the_nearest_that_does(time: int, taken: int) -> None:
    """A clock or an answer of AWS that is centuries ahead ends no issue and no sweep."""
    assert suffix_of(time, 7) == suffix_of(taken, 7)


@given(NAMES, NAMES, SUFFIXES)
def test_a_user_name_fits_iam_and_keeps_the_whole_suffix(mount: str, role: str, suffix: str) -> None:
    """By the default template a user's name is what IAM takes, and ends with all of the suffix."""
    name = user_names.user_name("", mount, role, suffix)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{1,64}", name)
    assert name.startswith("lessor-")
    assert name.endswith("-" + suffix)


@given(st.lists(PIECES, max_size=20), st.lists(PIECES, max_size=3), NAMES, NAMES, SUFFIXES)
def test_a_passed_template_keeps_twelve_random_characters(
    before: list[str], after: list[str], mount: str, role: str, suffix: str
) -> None:
    """Whatever template the rules pass, a user's name fits IAM and holds the suffix's last characters."""
    template = "".join(before) + "{{suffix}}" + "".join(after)
    if user_names.template_violations("username_template", template):
        return
    name = user_names.user_name(template, mount, role, suffix)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{12,64}", name)
    assert suffix[-user_names.MIN_RANDOM :] in name


def test_long_names_share_what_the_suffix_leaves() -> None:
    """A long role takes no room from a short mount, so that a person still sees both."""
    assert user_names.user_name("", "aws", "r" * 64, SUFFIX) == f"lessor-aws-{'r' * 28}-{SUFFIX}"
    assert user_names.user_name("", "m" * 64, "r" * 64, SUFFIX) == f"lessor-{'m' * 15}-{'r' * 16}-{SUFFIX}"


def test_a_template_shapes_the_name() -> None:
    """A template's own text and fields stand in the name, and what IAM doesn't take becomes ``_``."""
    assert user_names.user_name("ci/{{role}}+{{suffix}}.x", "aws", "app", SUFFIX) == f"ci_app+{SUFFIX}.x"


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
    """A bad template is refused when it is written, not when somebody asks for credentials."""
    (violation,) = user_names.template_violations("username_template", template)
    assert violation.field == "username_template"
    assert fault in violation.problem


def test_all_faults_of_a_template_are_told_at_once() -> None:
    """One look at the answer is enough to mend a template."""
    assert len(user_names.template_violations("username_template", "x" * 60 + "{{team}}")) == 3


@pytest.mark.parametrize("template", ["", user_names.DEFAULT_TEMPLATE, "{{suffix}}", "x" * 52 + "{{suffix}}"])
def test_a_template_with_room_for_chance_is_passed(template: str) -> None:
    """The default, and any template that leaves twelve random characters, is right."""
    assert user_names.template_violations("username_template", template) == []


def test_a_federated_sessions_name_fits_32_characters() -> None:
    """The name of a federated session holds all of the suffix in the 32 characters AWS takes."""
    made = user_names.federation_name("", "aws", "app", SUFFIX)
    assert made == f"lessor-{SUFFIX}"
    assert len(made) <= 32


def test_a_short_template_names_federated_sessions_too() -> None:
    """A template that leaves room for all that is random counts; a longer one gives way."""
    assert (
        user_names.federation_name("ci-{{role}}-{{suffix}}", "aws", "application", SUFFIX)
        == f"ci-appl-{SUFFIX}"
    )
    assert user_names.federation_name("x" * 20 + "{{suffix}}", "aws", "app", SUFFIX) == f"lessor-{SUFFIX}"


def test_a_name_may_tell_who_asked() -> None:
    """The fields of the caller are filled in, cut like the others, in characters that IAM takes."""
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
def test_a_users_path_lies_below_the_instances_own(path: str, whole: str) -> None:
    """Every user of an installation is found below one path."""
    assert user_names.user_path("i", path) == whole
