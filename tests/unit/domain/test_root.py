"""Checks the rules of a root, and that its secret is not shown."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from lessor_server.domain.root import (
    Hop,
    Root,
    RootConfig,
    from_plain,
    is_aws_endpoint,
    may_take_token,
    partition_of,
    to_plain,
    violations,
)
from lessor_server.domain.schedule import NEVER
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

KEY = "AKIAIOSFODNN7EXAMPLE"
ROOT = RootConfig(access_key=KEY, secret_key=Secret("not-a-real-key"))
LOCAL = "http://127.0.0.1:5000"
HOP = Hop("arn:aws:iam::123456789012:role/hub", "partner-7")


PROXY = "https://sts.proxy.test"
TOKEN_FILE = "/var/run/secrets/tokens/aws"


def fields(config: RootConfig, *, ambient: bool = False) -> list[str]:
    """Return the paths of all violations, the local stand-in and a proxy being allowed endpoints."""
    return [violation.field for violation in violations(config, [LOCAL + "/", PROXY], ambient=ambient)]


def in_places(path: str, places: TokenPlaces) -> list[str]:
    """Return the invalid fields of a root with this token file and these token directories."""
    config = RootConfig(identity_token_file=path, assume_chain=(Hop(HOP.role_arn),))
    return [one.field for one in violations(config, [], ambient=False, token_places=places)]


def test_a_root_of_two_keys_is_enough() -> None:
    assert fields(ROOT) == []


def test_a_root_with_every_field_is_valid() -> None:
    config = replace(
        ROOT,
        region="us-gov-west-1",
        iam_endpoint="https://iam.us-gov.amazonaws.com",
        sts_endpoint="https://sts.us-gov-west-1.amazonaws.com:443/",
        sts_region="us-gov-west-1",
        sts_fallback_endpoints=(LOCAL,),
        sts_fallback_regions=("eusc-de-east-1",),
        max_retries=0,
        username_template="ci-{{role}}-{{suffix}}",
        assume_chain=(HOP,),
        rotation_schedule="*/15 0-6,22 1 * 0",
        rotation_window=timedelta(hours=1),
    )
    assert fields(config) == []


@pytest.mark.parametrize(
    "field", [{"rotation_period": timedelta(days=1)}, {"rotation_schedule": "0 3 * * 0"}]
)
@pytest.mark.parametrize("source", ["token", "server"])
def test_a_rotation_schedule_needs_a_stored_key(source: str, field: dict[str, Any]) -> None:
    keyless = replace(ROOT, access_key="", secret_key=Secret(), assume_chain=(Hop(HOP.role_arn),))
    if source == "token":
        keyless = replace(keyless, identity_token_file=TOKEN_FILE)
    assert fields(keyless, ambient=True) == []
    assert fields(replace(keyless, **field), ambient=True) == list(field)
    assert replace(keyless, **field).rotation == NEVER
    assert fields(replace(ROOT, assume_chain=(HOP,), **field)) == []
    assert replace(ROOT, **field).rotation != NEVER


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"access_key": ""}, "access_key"),
        ({"secret_key": Secret()}, "secret_key"),
        ({"access_key": "", "secret_key": Secret()}, "access_key"),
        ({"access_key": "short"}, "access_key"),
        ({"secret_key": Secret("with a space")}, "secret_key"),
        ({"region": "US-EAST-1"}, "region"),
        ({"region": "us-east-1.evil.example"}, "region"),
        ({"sts_region": "moon"}, "sts_region"),
        ({"access_key": "ASIAIOSFODNN7EXAMPLE"}, "access_key"),
        ({"iam_endpoint": "http://iam.amazonaws.com"}, "iam_endpoint"),
        ({"sts_endpoint": "https://sts.example.com"}, "sts_endpoint"),
        ({"sts_fallback_endpoints": (LOCAL,)}, "sts_fallback_regions"),
        ({"sts_fallback_regions": ("us-east-1",)}, "sts_fallback_regions"),
        (
            {"sts_fallback_endpoints": ("",), "sts_fallback_regions": ("us-east-1",)},
            "sts_fallback_endpoints[0]",
        ),
        ({"sts_fallback_endpoints": (LOCAL,), "sts_fallback_regions": ("x",)}, "sts_fallback_regions[0]"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 11}, "max_retries"),
        ({"username_template": "{{role}}"}, "username_template"),
        ({"assume_chain": (Hop("hub"),)}, "assume_chain[0].role_arn"),
        ({"assume_chain": (HOP, replace(HOP, external_id="x"))}, "assume_chain[1].external_id"),
        ({"assume_chain": (HOP,) * 6}, "assume_chain"),
        ({"identity_token_audience": "aws"}, "identity_token_audience"),
        ({"identity_token_file": TOKEN_FILE, "assume_chain": (Hop(HOP.role_arn),)}, "identity_token_file"),
        ({"rotation_period": timedelta(seconds=59)}, "rotation_period"),
        ({"rotation_period": timedelta(seconds=-1)}, "rotation_period"),
        ({"rotation_window": timedelta(hours=1)}, "rotation_window"),
        ({"rotation_schedule": "0 3 * * 0", "rotation_period": timedelta(days=1)}, "rotation_schedule"),
        ({"rotation_schedule": "0 3 * *"}, "rotation_schedule"),
        ({"rotation_schedule": "60 3 * * *"}, "rotation_schedule"),
        ({"rotation_schedule": "0 6-3 * * *"}, "rotation_schedule"),
        ({"rotation_schedule": "0 3 0 * *"}, "rotation_schedule"),
        ({"rotation_schedule": "*/0 3 1 * *"}, "rotation_schedule"),
    ],
)
def test_an_invalid_field_of_a_root_is_named(changes: dict[str, Any], path: str) -> None:
    assert fields(replace(ROOT, **changes)) == [path]


def test_a_root_without_keys_needs_an_ambient_mount_or_a_token() -> None:
    assert fields(RootConfig()) == ["access_key"]
    assert fields(RootConfig(), ambient=True) == []
    token = RootConfig(identity_token_file=TOKEN_FILE, assume_chain=(Hop(HOP.role_arn),))
    assert fields(token) == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"identity_token_file": "token"}, "identity_token_file"),
        ({"identity_token_file": "/var/\0token"}, "identity_token_file"),
        ({"assume_chain": ()}, "assume_chain"),
        ({"sts_endpoint": PROXY}, "identity_token_file"),
        ({"sts_fallback_endpoints": (PROXY,), "sts_fallback_regions": ("eu-west-1",)}, "identity_token_file"),
        ({"assume_chain": (Hop(HOP.role_arn, "partner-7"),)}, "assume_chain[0].external_id"),
    ],
)
def test_a_web_identity_has_its_own_rules(changes: dict[str, Any], path: str) -> None:
    config = RootConfig(identity_token_file=TOKEN_FILE, assume_chain=(Hop(HOP.role_arn),))
    assert fields(replace(config, **changes)) == [path]


def test_a_web_identity_may_go_to_an_allowed_loopback() -> None:
    chain = (Hop(HOP.role_arn), HOP)
    config = RootConfig(identity_token_file=TOKEN_FILE, assume_chain=chain, sts_endpoint=LOCAL)
    assert fields(config) == []


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://127.0.0.1:5000/", True),
        ("http://[::1]:5000", True),
        ("http://localhost:5000", True),
        ("https://sts.us-east-1.amazonaws.com", True),
        ("https://sts.proxy.test", False),
        ("http://127.0.0.1.proxy.test", False),
        ("http://localhost.proxy.test", False),
        ("http://0.0.0.0:5000", False),
        ("http://10.0.0.1", False),
    ],
)
def test_a_token_is_allowed_only_with_aws_and_loopback_endpoints(url: str, allowed: bool) -> None:
    """The operator's list of endpoints does not count for tokens."""
    assert may_take_token(url, [url]) is allowed
    assert may_take_token(url, []) is url.startswith("https://sts.us-east-1.")


def test_all_violations_of_a_root_are_reported() -> None:
    bad = RootConfig(
        access_key=KEY, region="x", max_retries=99, iam_endpoint="ftp://x", rotation_schedule="x"
    )
    assert set(fields(bad)) == {"secret_key", "region", "max_retries", "iam_endpoint", "rotation_schedule"}


@pytest.mark.parametrize(
    "url",
    [
        "https://iam.amazonaws.com",
        "https://iam.amazonaws.com/",
        "https://sts.us-east-1.amazonaws.com:443",
        "https://iam.cn-north-1.amazonaws.com.cn",
        "https://iam.global.api.aws",
        "https://sts.eusc-de-east-1.amazonaws.eu",
        "https://iam.us-iso-east-1.c2s.ic.gov",
        "https://iam.us-isob-east-1.sc2s.sgov.gov",
        "https://vpce-0a1b.sts.us-east-1.vpce.amazonaws.com",
        "https://sts-fips.us-east-1.amazonaws.com",
        "https://iam.us-gov.amazonaws.com",
    ],
)
def test_hosts_of_awss_partitions_are_allowed_endpoints(url: str) -> None:
    assert is_aws_endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://iam.amazonaws.com",
        "https://amazonaws.com",
        "https://evilamazonaws.com",
        "https://iam.amazonaws.com.evil.example",
        "https://iam.amazonaws.com@evil.example",
        "https://user:pass@iam.amazonaws.com",
        "https://evil.example/.amazonaws.com",
        "https://evil.example#.amazonaws.com",
        "https://evil.example?.amazonaws.com",
        "https://evil.example\\.amazonaws.com",
        "https://iam.amazonaws.com:8443",
        "https://iam.amazonaws.com/path",
        "https://iam.amazonaws.com?x=1",
        "https://iam.amazonaws.com\n",
        "https://-iam.amazonaws.com",
        "https://iam..amazonaws.com",
        "https://ec2-192-0-2-1.compute-1.amazonaws.com",
        "https://bucket.s3.amazonaws.com",
        "https://iam.s3.amazonaws.com",
        "https://iam.elb.us-east-1.amazonaws.com",
    ],
)
def test_a_host_that_resembles_awss_is_refused(url: str) -> None:
    assert not is_aws_endpoint(url)
    assert fields(replace(ROOT, iam_endpoint=url)) == (["iam_endpoint"] if url else [])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"iam_endpoint": "https://sts.amazonaws.com"}, "iam_endpoint"),
        ({"sts_endpoint": "https://iam.amazonaws.com"}, "sts_endpoint"),
        ({"iam_endpoint": "https://iam.eu-west-1.amazonaws.com"}, "iam_endpoint"),
        ({"iam_endpoint": "https://iam.cn-northwest-1.amazonaws.com.cn"}, "iam_endpoint"),
        ({"iam_endpoint": "https://iam.us-gov-east-1.api.aws"}, "iam_endpoint"),
        ({"sts_endpoint": "https://sts.us-west-2.amazonaws.com", "sts_region": "us-east-1"}, "sts_region"),
        ({"sts_endpoint": "https://sts.amazonaws.com", "sts_region": "eu-west-1"}, "sts_region"),
        (
            {
                "sts_fallback_endpoints": ("https://vpce-1.sts.eu-west-1.vpce.amazonaws.com",),
                "sts_fallback_regions": ("eu-west-2",),
            },
            "sts_fallback_regions[0]",
        ),
        ({"region": "cn-north-1", "iam_endpoint": "https://iam.amazonaws.com"}, "iam_endpoint"),
        ({"region": "eu-west-1", "iam_endpoint": "https://iam.us-gov.amazonaws.com"}, "iam_endpoint"),
        ({"region": "us-east-1", "sts_region": "us-gov-west-1"}, "sts_region"),
        (
            {
                "iam_endpoint": "https://iam.us-iso-east-1.c2s.ic.gov",
                "sts_endpoint": "https://sts.us-isob-east-1.sc2s.sgov.gov",
            },
            "sts_endpoint",
        ),
    ],
)
def test_regions_and_hosts_that_contradict_one_another_are_refused(
    changes: dict[str, Any], path: str
) -> None:
    """AWS would refuse each signature of such a root."""
    assert fields(replace(ROOT, **changes)) == [path]


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "eu-west-1", "iam_endpoint": "https://iam.amazonaws.com"},
        {"region": "eu-west-1", "sts_endpoint": "https://sts.us-west-2.amazonaws.com"},
        {"region": "us-gov-east-1", "iam_endpoint": "https://iam.us-gov.amazonaws.com"},
        {"region": "cn-northwest-1", "iam_endpoint": "https://iam.cn-north-1.amazonaws.com.cn"},
        {"iam_endpoint": "https://vpce-0a1b.iam.us-east-1.vpce.amazonaws.com"},
        {"sts_endpoint": "https://sts.amazonaws.com", "sts_region": "us-east-1"},
        {
            "region": "cn-north-1",
            "iam_endpoint": LOCAL,
            "sts_endpoint": LOCAL,
            "sts_region": "cn-northwest-1",
        },
    ],
)
def test_regions_and_hosts_that_match_are_valid(changes: dict[str, Any]) -> None:
    """IAM's host says nothing about the region, and STS may be in another one."""
    assert fields(replace(ROOT, **changes)) == []


def test_a_temporary_key_is_refused_with_the_reason() -> None:
    """Without its session token such a key never works."""
    config = replace(ROOT, access_key="ASIAIOSFODNN7EXAMPLE")
    (found,) = violations(config, [], ambient=False)
    assert "session token" in found.problem


@pytest.mark.parametrize(
    ("changes", "account", "partition"),
    [
        ({}, "", ""),
        ({}, "aws-cn:123456789012", "aws-cn"),
        ({"region": "us-gov-west-1"}, "", "aws-us-gov"),
        ({"sts_endpoint": "https://sts.cn-north-1.amazonaws.com.cn"}, "", "aws-cn"),
        ({"iam_endpoint": LOCAL}, "", ""),
    ],
)
def test_the_partition_of_a_root_is_known_by_what_it_names(
    changes: dict[str, Any], account: str, partition: str
) -> None:
    assert partition_of(Root("aws", 1, account, replace(ROOT, **changes))) == partition


def test_an_allowed_endpoint_is_matched_whole() -> None:
    assert fields(replace(ROOT, iam_endpoint=LOCAL, sts_endpoint=LOCAL + "/")) == []
    assert fields(replace(ROOT, iam_endpoint=LOCAL + "/x")) == ["iam_endpoint"]
    assert fields(replace(ROOT, iam_endpoint=LOCAL + "0")) == ["iam_endpoint"]


def test_a_secret_is_printed_as_stars() -> None:
    hidden = "not-a-real-key"
    for shown in (
        repr(ROOT),
        str(ROOT.secret_key),
        f"{ROOT.secret_key}",
        str(asdict(ROOT)),
        repr(copy.deepcopy(ROOT)),
    ):
        assert hidden not in shown
    assert "***" in repr(ROOT)
    assert ROOT.secret_key.reveal() == hidden


def test_secrets_compare_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert not Secret()


def test_no_violation_repeats_a_secret_key() -> None:
    swapped = RootConfig(access_key="hush/hush+hush", secret_key=Secret("hush hush"))
    assert "hush" not in str(violations(swapped, [], ambient=False))


def test_a_root_can_be_serialized_and_parsed() -> None:
    config = replace(
        ROOT,
        max_retries=0,
        assume_chain=(HOP,),
        sts_fallback_regions=("us-east-1",),
        rotation_period=timedelta(days=1),
        etag="7",
    )
    assert from_plain(to_plain(config), "7") == config
    assert "etag" not in to_plain(config)


def test_a_root_of_another_version_can_be_parsed() -> None:
    """Unknown fields are ignored, and missing ones have their defaults."""
    assert from_plain({"access_key": KEY, "novelty": 1}, "") == RootConfig(access_key=KEY)


@pytest.mark.parametrize("path", ["/run/tokens/aws", "/run/tokens/of/aws", "/var/run/secrets/token"])
def test_a_token_file_may_be_in_each_directory_that_is_set(path: str) -> None:
    assert in_places(path, TokenPlaces(("/run/tokens", "/var/run/secrets/"))) == []


@pytest.mark.parametrize("enforced", [False, True])
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/run/tokens", "/run/tokens/", "/run/tokens-of-others/x", "/run/tokens/../../etc/x",
     "/run/tokens/..", "/run/token", "/run/Tokens/x"],
)  # fmt: skip
def test_a_token_file_elsewhere_is_refused(path: str, enforced: bool) -> None:
    for dirs in (("/run/tokens",), ()):
        assert in_places(path, TokenPlaces(dirs, enforced)) == ["identity_token_file"]


def test_the_default_directories_are_those_of_kubernetes() -> None:
    """Those of EKS's service accounts, and of other projected tokens."""
    for path in ("/var/run/secrets/eks.amazonaws.com/serviceaccount/token", TOKEN_FILE):
        assert in_places(path, TokenPlaces()) == []
    for path in (
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "/var/run/secrets/token",
        "/tmp/token",
    ):
        assert in_places(path, TokenPlaces()) == ["identity_token_file"]


@pytest.mark.parametrize(
    "path",
    [
        "/srv/data/root-token",
        "/srv/data/backups/b",
        "/srv/./data//root-token",
        "/srv/tls.key",
        "/srv//tls.key",
    ],
)
def test_a_file_of_the_server_is_refused_as_token_file(path: str) -> None:
    places = TokenPlaces(("/srv", "/"), data_dir="/srv/data", private_files=("/srv/tls.key",))
    assert in_places(path, places) == ["identity_token_file"]
    assert in_places("/srv/database", places) == in_places("/srv/tls.keys", places) == []


def test_an_endpoint_under_the_suffix_of_another_partition_is_refused_with_the_right_one() -> None:
    """The suffix of China is the one that is forgotten most often."""
    config = replace(ROOT, region="cn-north-1", sts_endpoint="https://sts.cn-north-1.amazonaws.com")
    (found,) = violations(config, [], ambient=False)
    assert found.field == "sts_endpoint"
    assert "https://sts.cn-north-1.amazonaws.com.cn" in found.fix
