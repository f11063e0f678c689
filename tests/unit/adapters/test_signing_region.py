"""Checks for which region the requests of a root are signed."""

from __future__ import annotations

import pytest
from tests.support.gateways import gateway, root
from tests.support.standin_control import StandIn

from lessor_server.adapters.aws.endpoints import endpoints_of
from lessor_server.adapters.aws.routes import Routes
from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.aws.iam_calls import GetUser
from lessor_server.domain.aws.sts_calls import GetCallerIdentity


@pytest.mark.parametrize(
    ("region", "iam", "sts"),
    [
        ("eu-west-1", "us-east-1", "eu-west-1"),
        ("us-east-1", "us-east-1", "us-east-1"),
        ("cn-northwest-1", "cn-north-1", "cn-northwest-1"),
        ("us-gov-east-1", "us-gov-west-1", "us-gov-east-1"),
        ("", "us-east-1", "us-east-1"),
    ],
)
async def test_iam_at_a_custom_endpoint_is_signed_for_the_partitions_region(
    aws: StandIn, region: str, iam: str, sts: str
) -> None:
    """IAM accepts no other region's signature. STS accepts its own region's."""
    async with gateway(aws.url) as door:
        one = root(aws.url, region=region)
        await door.send(one, GetCallerIdentity())
        with pytest.raises(AwsRefused):
            await door.send(one, GetUser("nobody"))
    assert [call["scope"] for call in await aws.calls()] == [f"{sts}/sts", f"{iam}/iam"]


async def test_the_region_of_the_environment_only_decides_the_partition(
    aws: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-northwest-1")
    async with gateway(aws.url) as door:
        with pytest.raises(AwsRefused):
            await door.send(root(aws.url, region=""), GetUser("nobody"))
    assert [call["scope"] for call in await aws.calls()] == ["cn-north-1/iam"]


@pytest.mark.parametrize(
    ("service", "endpoints", "scope"),
    [
        ("iam", {"iam_endpoint": "https://iam.amazonaws.com"}, "us-east-1/iam"),
        ("iam", {"iam_endpoint": "https://iam-fips.amazonaws.com"}, "us-east-1/iam"),
        ("iam", {"iam_endpoint": "https://vpce-1.iam.us-east-1.vpce.amazonaws.com"}, "us-east-1/iam"),
        ("iam", {"iam_endpoint": ""}, "us-east-1/iam"),
        ("sts", {"sts_endpoint": "https://sts.us-west-2.amazonaws.com"}, "us-west-2/sts"),
        ("sts", {"sts_endpoint": "https://sts.amazonaws.com"}, "us-east-1/sts"),
        ("sts", {"sts_endpoint": "https://vpce-1.sts.us-east-2.vpce.amazonaws.com"}, "us-east-2/sts"),
        ("sts", {"sts_endpoint": ""}, "eu-west-1/sts"),
        ("sts", {"sts_endpoint": "", "sts_region": "us-east-2"}, "us-east-2/sts"),
    ],
)
def test_a_host_of_aws_is_signed_for_its_own_region(
    service: str, endpoints: dict[str, str], scope: str
) -> None:
    one = root("", **{"region": "eu-west-1", "iam_endpoint": "", "sts_endpoint": "", **endpoints})
    route = Routes(()).find(service, endpoints_of(one.config, service)[0], token=False)
    assert f"{route.region}/{route.service}" == scope
