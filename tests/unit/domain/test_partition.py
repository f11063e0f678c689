"""Compares partitions, hosts of IAM and STS, and signing regions with those of botocore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from lessor_server.domain.aws.partition import (
    NAMES,
    PARTITIONS,
    aws_host,
    corrected,
    of_region,
    signing_region,
)

LOADER = botocore.session.get_session().get_component("data_loader")
ENDPOINTS: list[dict[str, Any]] = LOADER.load_data("endpoints")["partitions"]
KNOWN: list[dict[str, Any]] = LOADER.load_data("partitions")["partitions"]


def hosts() -> Iterator[tuple[str, str, str, str]]:
    """Yield each host of IAM and STS that botocore knows: partition, service, host, region to sign for."""
    for known in ENDPOINTS:
        for service in ("iam", "sts"):
            found = known["services"].get(service, {"endpoints": {}})
            for name, endpoint in found["endpoints"].items():
                region = endpoint.get("credentialScope", {}).get("region", name)
                host = endpoint.get("hostname", f"{service}.{name}.{known['dnsSuffix']}")
                variants = [one["hostname"] for one in endpoint.get("variants", ())]
                if name == "iam" or name.endswith("govcloud"):  # names of before, without a host of their own
                    host = variants[0]
                for one in (host, *variants):
                    yield known["partition"], service, one, region


def test_the_partitions_are_those_of_the_sdk() -> None:
    assert {one["id"] for one in KNOWN} == NAMES
    for one in KNOWN:
        (own,) = (partition for partition in PARTITIONS if partition.name == one["id"])
        assert own.domains == (one["outputs"]["dnsSuffix"], one["outputs"]["dualStackDnsSuffix"])
        regions = [region for region in one["regions"] if not region.endswith("-global")]
        assert {of_region(region) for region in regions} == {own}


@pytest.mark.parametrize(("partition", "service", "host", "region"), list(hosts()))
def test_requests_are_signed_for_the_region_that_the_sdk_uses(
    partition: str, service: str, host: str, region: str
) -> None:
    found = aws_host(f"https://{host}")
    assert found is not None
    assert (found.partition.name, found.service) == (partition, service)
    for configured in ("", "eu-west-1", "cn-north-1"):
        assert signing_region(service, f"https://{host}", configured) == region


@pytest.mark.parametrize(
    ("service", "url", "configured", "region"),
    [
        ("iam", "https://vpce-0a.iam.us-east-1.vpce.amazonaws.com", "eu-west-1", "us-east-1"),
        ("iam", "https://vpce-0a.iam.us-gov-west-1.vpce.amazonaws.com", "us-gov-east-1", "us-gov-west-1"),
        ("sts", "https://vpce-0a-b.sts.ap-south-1.vpce.amazonaws.com:443/", "us-east-1", "ap-south-1"),
        ("sts", "https://STS.us-west-2.amazonaws.com", "", "us-west-2"),
        ("sts", "https://sts.eu-central-1.api.aws", "", "eu-central-1"),
        ("sts", "https://sts-fips.us-gov-east-1.api.aws", "us-gov-west-1", "us-gov-east-1"),
        ("iam", "http://127.0.0.1:5000", "eu-west-1", "us-east-1"),
        ("iam", "http://127.0.0.1:5000", "", "us-east-1"),
        ("iam", "http://127.0.0.1:5000", "cn-northwest-1", "cn-north-1"),
        ("iam", "https://proxy.test", "us-gov-east-1", "us-gov-west-1"),
        ("iam", "https://proxy.test", "us-isof-east-1", "us-isof-south-1"),
        ("iam", "https://proxy.test", "eu-isoe-west-1", "eu-isoe-west-1"),
        ("sts", "https://proxy.test", "eu-west-3", "eu-west-3"),
        ("sts", "https://proxy.test", "", ""),
    ],
)
def test_a_host_that_is_not_awss_is_signed_for_by_the_rule_of_the_partition(
    service: str, url: str, configured: str, region: str
) -> None:
    """The SDK's list also lacks VPC endpoints and dual-stack hosts."""
    assert signing_region(service, url, configured) == region


@pytest.mark.parametrize(
    "host",
    [
        "sts.cn-north-1.amazonaws.com",
        "sts.us-iso-east-1.amazonaws.com",
        "sts.eusc-de-east-1.api.aws",
        "sts.us-west-2.amazonaws.com.cn",
        "sts.us-gov-west-1.amazonaws.eu",
        "iam.eu-west-1.c2s.ic.gov",
        "vpce-0a.sts.cn-north-1.vpce.amazonaws.com",
        "sts.us-gov.amazonaws.com",
        "sts.global.api.aws",
    ],
)
def test_a_region_with_the_suffix_of_another_partition_is_not_an_aws_host(host: str) -> None:
    """Most often such a URL was copied, and only its region was changed."""
    assert aws_host(f"https://{host}") is None


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://sts.cn-north-1.amazonaws.com", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("https://STS.us-west-2.amazonaws.com.cn/", "https://sts.us-west-2.amazonaws.com"),
        ("https://sts.cn-north-1.api.aws", "https://sts.cn-north-1.api.amazonwebservices.com.cn"),
        ("https://iam.us-iso-east-1.amazonaws.com", "https://iam.us-iso-east-1.c2s.ic.gov"),
        ("https://sts.us-gov-west-1.amazonaws.com", ""),
        ("https://sts.us-gov.amazonaws.com", ""),
        ("https://sts.amazonaws.com", ""),
        ("https://proxy.test", ""),
    ],
)
def test_the_error_names_the_right_host_of_the_partition(url: str, right: str) -> None:
    assert corrected(url) == right
