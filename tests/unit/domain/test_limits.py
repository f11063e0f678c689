"""Checks the maximum of each text and list: the maximum is accepted, and one more is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain import root, static_role
from lessor_server.domain.aws import arn
from lessor_server.domain.errors.base import Invalid
from lessor_server.domain.lease_id import MAX_LEASE_ID, SUFFIX_DIGITS, IdRange, LeaseId
from lessor_server.domain.mount import Mount
from lessor_server.domain.mount import violations as mount_violations
from lessor_server.domain.policy import placeholders, session
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import CredentialType, Role, review
from lessor_server.domain.root import Hop, RootConfig
from lessor_server.domain.schedule import Schedule
from lessor_server.domain.secret import Secret
from lessor_server.domain.static_role import StaticRole

ARN = "arn:aws:iam::123456789012"
ROOT = RootConfig(access_key="A" * 20, secret_key=Secret("s"))
TOKEN_DIR = "/var/run/secrets/tokens"
TOKEN = RootConfig(identity_token_file=f"{TOKEN_DIR}/t", assume_chain=(Hop(f"{ARN}:role/hub"),))
ASSUMED = Role("aws", "app", CredentialType.ASSUMED_ROLE, role_arns=(f"{ARN}:role/app",))
STATIC = StaticRole("aws", "app", "app", Schedule(timedelta(hours=1)))


def padded(before: str, after: str = "", pad: str = "a") -> Callable[[int], str]:
    """Return what makes a text of a length, with these ends."""
    return lambda length: before + (pad * length)[: length - len(before) - len(after)] + after


def vpc_endpoint(length: int, service: str = "sts") -> str:
    """Return the URL of a VPC endpoint, which has room in its name."""
    return padded("https://vpce-", f".{service}.us-east-1.vpce.amazonaws.com")(length)


def template(length: int) -> str:
    """Return a template of user names whose own text is short."""
    fill = "{{ suffix }}" + "{{role}}" * ((length - 52) // 8)
    return fill.replace(" }}", " " * (length - len(fill) + 1) + "}}", 1)


def of_root(config: RootConfig) -> list[str]:
    """Return the invalid fields of a root."""
    return [one.field for one in root.violations(config, [], ambient=False)]


def of_role(role: Role) -> list[str]:
    """Return the invalid fields of a role."""
    return [one.field for one in review(role, Mount("aws")).violations]


def of_static(role: StaticRole) -> list[str]:
    """Return the invalid fields of a static role."""
    return [one.field for one in static_role.violations(role)]


def of_options(options: SessionOptions) -> list[str]:
    """Return the invalid fields of session options."""
    role = replace(ASSUMED, mfa_serial_number="GAHT12345678" if options.mfa_code else "")
    role = replace(role, role_arns=(options.role_arn,)) if options.role_arn else role
    return [one.field for one in session.violations(role, options)]


def of_prefix(text: str) -> list[str]:
    """Return the field of an invalid prefix."""
    try:
        IdRange.parse(text)
    except Invalid as error:
        return [one.field for one in error.violations]
    return []


def role_arn(length: int) -> str:
    """Return the ARN of a role with a long path."""
    return padded(f"{ARN}:role/", "/n", "p")(length)


def policy_arn(length: int) -> str:
    """Return the ARN of a managed policy with a long path."""
    return padded(f"{ARN}:policy/", "/n", "p")(length)


def tags_of(count: int) -> tuple[tuple[str, str], ...]:
    """Return so many tags."""
    return tuple((key, "v") for key in numbered("k", count))


LIMITS: list[tuple[str, int, Callable[[int], list[str]]]] = [
    ("description", 1000, lambda n: [v.field for v in mount_violations(Mount("aws", "d" * n))]),
    ("region", 32, lambda n: of_root(replace(ROOT, region=padded("us-", "-1")(n)))),
    ("sts_region", 32, lambda n: of_root(replace(ROOT, sts_region=padded("us-", "-1")(n)))),
    ("iam_endpoint", 300, lambda n: of_root(replace(ROOT, iam_endpoint=vpc_endpoint(n, "iam")))),
    ("sts_endpoint", 300, lambda n: of_root(replace(ROOT, sts_endpoint=vpc_endpoint(n)))),
    (
        "sts_fallback_endpoints[0]",
        300,
        lambda n: of_root(
            replace(ROOT, sts_fallback_endpoints=(vpc_endpoint(n),), sts_fallback_regions=("us-east-1",))
        ),
    ),
    ("username_template", 512, lambda n: of_root(replace(ROOT, username_template=template(n)))),
    ("access_key", 128, lambda n: of_root(replace(ROOT, access_key="A" * n))),
    ("secret_key", 256, lambda n: of_root(replace(ROOT, secret_key=Secret("s" * n)))),
    ("assume_chain[0].role_arn", 700, lambda n: of_root(replace(ROOT, assume_chain=(Hop(role_arn(n)),)))),
    (
        "assume_chain[0].external_id",
        1224,
        lambda n: of_root(replace(ROOT, assume_chain=(Hop(f"{ARN}:role/x", "e" * n),))),
    ),
    (
        "identity_token_file",
        1000,
        lambda n: of_root(replace(TOKEN, identity_token_file=padded(f"{TOKEN_DIR}/")(n))),
    ),
    ("identity_token_audience", 255, lambda n: of_root(replace(TOKEN, identity_token_audience="a" * n))),
    ("name", 64, lambda n: of_role(replace(ASSUMED, name="n" * n))),
    ("role_arns[0]", 700, lambda n: of_role(replace(ASSUMED, role_arns=(role_arn(n),)))),
    (
        "policy_arns[0]",
        700,
        lambda n: of_role(replace(ASSUMED, policy_arns=(padded(f"{ARN}:policy/", "/n")(n),))),
    ),
    ("iam_groups[0]", 128, lambda n: of_role(replace(ASSUMED, iam_groups=("g" * n,)))),
    ("source_identity", 64, lambda n: of_role(replace(ASSUMED, source_identity="s" * n))),
    (
        "source_identity",
        512,
        lambda n: of_role(replace(ASSUMED, source_identity=padded("{{identity.name", "}}", " ")(n))),
    ),
    (
        'session_tags["k"]',
        512,
        lambda n: of_role(replace(ASSUMED, session_tags=(("k", padded("{{identity.name", "}}", " ")(n)),))),
    ),
    ("external_id", 1224, lambda n: of_role(replace(ASSUMED, external_id="e" * n))),
    ("mfa_serial_number", 256, lambda n: of_role(replace(ASSUMED, mfa_serial_number="m" * n))),
    ("username", 64, lambda n: of_static(replace(STATIC, username="u" * n))),
    ("name", 64, lambda n: of_static(replace(STATIC, name="u" * n))),
    ("role_arn", 700, lambda n: of_options(SessionOptions(role_arn=role_arn(n)))),
    ("role_session_name", 64, lambda n: of_options(SessionOptions(session_name="s" * n))),
    ("mfa_code", 6, lambda n: of_options(SessionOptions(mfa_code=Secret("1" * n)))),
    ("prefix", 64 + 1, lambda n: of_prefix("m" * (n - 1) + "/")),
    ("sts_fallback_regions", 20, lambda n: of_root(fallbacks(n))[1:]),
    ("assume_chain", 5, lambda n: of_root(replace(ROOT, assume_chain=(Hop(f"{ARN}:role/x"),) * n))),
    ("role_arns", 100, lambda n: of_role(replace(ASSUMED, role_arns=numbered(f"{ARN}:role/r", n)))),
    ("policy_arns", 10, lambda n: of_role(replace(ASSUMED, policy_arns=numbered(f"{ARN}:policy/p", n)))),
    ("iam_groups", 10, lambda n: of_role(replace(ASSUMED, iam_groups=numbered("g", n)))),
    (
        "session_tags",
        50,
        lambda n: of_role(replace(ASSUMED, session_tags=tuple((f"k{i}", "v") for i in range(n)))),
    ),
]


def fallbacks(count: int) -> RootConfig:
    """Return a root with so many STS endpoints to fall back to."""
    urls = tuple(f"https://sts.us-east-{number}.amazonaws.com" for number in range(1, count + 1))
    regions = tuple(f"us-east-{number}" for number in range(1, count + 1))
    return replace(ROOT, sts_fallback_endpoints=urls, sts_fallback_regions=regions)


def numbered(text: str, count: int) -> tuple[str, ...]:
    """Return so many different texts."""
    return tuple(f"{text}{number}" for number in range(count))


@pytest.mark.parametrize(("field", "most", "found"), LIMITS)
def test_a_maximum_is_accepted_and_one_more_is_refused(
    field: str, most: int, found: Callable[[int], list[str]]
) -> None:
    assert found(most) == []
    assert found(most + 1) == [field]


def test_a_list_that_is_too_long_is_checked_only_up_to_its_maximum() -> None:
    role = replace(ASSUMED, iam_groups=("a b",) * 10_000, role_arns=("x",) * 10_000)
    found = review(role, Mount("aws")).violations
    assert len(found) < 350
    assert {"iam_groups", "iam_groups[9]", "role_arns[99]"} <= {one.field for one in found}
    assert "iam_groups[10]" not in {one.field for one in found}
    tagged = replace(ASSUMED, session_tags=tuple((f"k{index}", "{{x}}") for index in range(10_000)))
    assert len(of_role(tagged)) == 50
    assert of_role(replace(ASSUMED, iam_tags=(("aws:x", "v"),) * 48)) == ["iam_tags", "iam_tags"]
    hops = RootConfig(access_key="A" * 20, secret_key=Secret("s"), assume_chain=(Hop("x"),) * 10_000)
    assert len(of_root(hops)) == 6


def test_a_lease_id_of_the_longest_names_is_valid() -> None:
    longest = LeaseId("m" * 64, "r" * 64, "0" * SUFFIX_DIGITS)
    assert LeaseId.parse(str(longest)) == longest
    assert len(str(longest)) == MAX_LEASE_ID
    assert IdRange.parse(str(longest)).covers(str(longest))


def test_an_arn_that_aws_can_have_is_below_the_maximum() -> None:
    """A path has at most 512 characters and a policy's name 128 (IAM and AWS STS quotas)."""
    longest = "arn:aws-us-gov:iam::123456789012:policy/" + "p" * 510 + "/" + "n" * 128
    assert arn.is_policy(longest)


def test_a_text_that_is_not_a_url_is_refused_before_it_is_parsed() -> None:
    config = replace(TOKEN, sts_endpoint="http://[x")
    assert set(of_root(config)) == {"sts_endpoint", "identity_token_file"}


def test_trailing_slashes_count_for_the_length_of_an_allowed_endpoint() -> None:
    """An endpoint is compared without its trailing slashes, but stored with them."""
    for length, wrong in ((300, []), (301, ["iam_endpoint"])):
        config = replace(ROOT, iam_endpoint=padded("http://127.0.0.1:5000", pad="/")(length))
        found = root.violations(config, ["http://127.0.0.1:5000"], ambient=False)
        assert [one.field for one in found] == wrong


OLD_FIELD = re.compile(r"\{\{ *([^{}]*?) *\}\}")
"""What a placeholder is; too slow for the texts of callers."""


@given(st.text(alphabet="{} ab", max_size=14))
def test_placeholders_are_what_the_regular_expression_finds(text: str) -> None:
    pieces = OLD_FIELD.split(text)
    assert placeholders.split(text) == list(zip(pieces[::2], [*pieces[1::2], None], strict=True))
    assert placeholders.fields(text) == pieces[1::2]

    def value(field: str) -> str | None:
        return "X" if field == "a" else None

    assert placeholders.fill(text, value) == OLD_FIELD.sub(lambda found: value(found[1]) or found[0], text)
    own = OLD_FIELD.sub("", text)
    assert placeholders.has_stray_braces(text) is ("{{" in own or "}}" in own)
