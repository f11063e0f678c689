"""Uses an issued key the way its owner would: with the AWS SDK, against the embedded AWS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import aioboto3
from botocore.exceptions import ClientError

from lessor_server.commands.dev.embedded_aws import DIRECT, REGION
from lessor_server.domain.secret import Secret

KEY_REFUSED: Final = frozenset({"AuthFailure", "InvalidClientTokenId"})
"""AWS's codes for a key that does not exist; EC2's differs."""


@dataclass(frozen=True, slots=True)
class Key:
    """An access key, and the URL of the AWS that it is for."""

    url: str
    access_key: str
    secret_key: Secret


class AwsSaidNo(Exception):
    """AWS refused a request; ``code`` is its error code."""

    def __init__(self, error: ClientError) -> None:
        """Keep AWS's code and text."""
        super().__init__(str(error))
        self.code = str(error.response["Error"]["Code"])


async def describe_regions(key: Key) -> list[str]:
    """Return the names of all regions (``ec2:DescribeRegions``), or raise ``AwsSaidNo``."""
    answer = await _ask(key, "ec2", "describe_regions")
    return [region["RegionName"] for region in answer["Regions"]]


async def list_users(key: Key) -> list[str]:
    """Return the names of all users (``iam:ListUsers``), or raise ``AwsSaidNo``."""
    answer = await _ask(key, "iam", "list_users")
    return [user["UserName"] for user in answer["Users"]]


async def _ask(key: Key, service: str, operation: str) -> dict[str, list[dict[str, str]]]:
    client = aioboto3.Session().client(
        service,
        endpoint_url=key.url,
        region_name=REGION,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key.reveal(),
        config=DIRECT,
    )
    async with client as aws:
        try:
            answer: dict[str, list[dict[str, str]]] = await getattr(aws, operation)()
        except ClientError as error:
            raise AwsSaidNo(error) from None
    return answer
