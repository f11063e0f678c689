"""AWS's partitions: their names, regions, and hosts of IAM and STS.

Source: ``partitions.json`` and ``endpoints.json`` of botocore; the endpoint pages of IAM and STS in the AWS
General Reference. A partition has one IAM, which accepts only signatures for one region.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

IAM: Final = "iam"
STS: Final = "sts"
MAX_ENDPOINT: Final = 300
"""The maximum length of an endpoint's URL: a DNS name has at most 253 (RFC 1035, 2.3.4)."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Hold one partition.

    Attributes:
        name: Its name in ARNs.
        regions: The prefixes of its regions.
        iam_region: The region that requests to IAM are signed for, and those to a global host of STS.
        domains: The DNS suffixes of its hosts, plain and dual-stack.
    """

    name: str
    regions: tuple[str, ...]
    iam_region: str
    domains: tuple[str, ...]


AWS: Final = Partition(
    "aws",
    ("us-", "eu-", "ap-", "sa-", "ca-", "me-", "af-", "il-", "mx-"),
    "us-east-1",
    ("amazonaws.com", "api.aws"),
)
_GOV: Final = Partition("aws-us-gov", ("us-gov-",), "us-gov-west-1", ("amazonaws.com", "api.aws"))
PARTITIONS: Final[tuple[Partition, ...]] = (
    _GOV,
    Partition("aws-cn", ("cn-",), "cn-north-1", ("amazonaws.com.cn", "api.amazonwebservices.com.cn")),
    Partition("aws-eusc", ("eusc-",), "eusc-de-east-1", ("amazonaws.eu", "api.amazonwebservices.eu")),
    Partition("aws-iso", ("us-iso-",), "us-iso-east-1", ("c2s.ic.gov", "api.aws.ic.gov")),
    Partition("aws-iso-b", ("us-isob-",), "us-isob-east-1", ("sc2s.sgov.gov", "api.aws.scloud")),
    Partition("aws-iso-e", ("eu-isoe-",), "eu-isoe-west-1", ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk")),
    Partition("aws-iso-f", ("us-isof-",), "us-isof-south-1", ("csp.hci.ic.gov", "api.aws.hci.ic.gov")),
    AWS,
)
"""Every partition; one with a longer region prefix comes before one with the shorter."""

NAMES: Final = frozenset(one.name for one in PARTITIONS)

_HOST: Final = re.compile(
    r"(?:vpce-[a-z0-9-]+\.)?(?P<service>iam|sts)(?:-fips)?"
    r"(?:\.(?P<region>us-gov|global|[a-z]{2,5}(?:-[a-z]+)+-[0-9]{1,2}))?(?:\.vpce)?"
)
"""The labels before the suffix: the service, optionally a region. The suffix alone shows nothing, because
customers' buckets, load balancers and instances have names below it too.
"""

_WHOLE_PARTITION: Final = ("us-gov", "global")
"""The label in place of a region in hosts of IAM that serve a whole partition."""


@dataclass(frozen=True, slots=True)
class AwsHost:
    """Hold the parts of an AWS host; ``region`` is empty if it serves a whole partition."""

    service: str
    region: str
    partition: Partition

    @property
    def signing_region(self) -> str:
        """Return the region that requests to this host are signed for."""
        return self.partition.iam_region if self.service == IAM else self.region or self.partition.iam_region


def canonical_url(url: str) -> str:
    """Return a URL with scheme and host in lower case (RFC 3986, 3.1 and 3.2.2: case does not matter)."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}://{host.lower()}{slash}{path}" if separator and "@" not in host else url


def aws_host(url: str) -> AwsHost | None:
    """Parse the host of IAM or STS in ``url``; None unless it is AWS's, https, and only a host."""
    if len(url) > MAX_ENDPOINT or not url.startswith("https://"):
        return None
    host = url.removeprefix("https://").removesuffix("/").removesuffix(":443").lower()
    for partition in PARTITIONS:
        for domain in partition.domains:
            found = _HOST.fullmatch(host.removesuffix(f".{domain}")) if host.endswith(f".{domain}") else None
            if found is not None:
                return _placed(found["service"], found["region"] or "", partition)
    return None


def corrected(url: str) -> str:
    """Return ``url`` with the suffix of its region's partition if it has another, or empty."""
    host = canonical_url(url).removeprefix("https://").rstrip("/")
    for partition in PARTITIONS:
        for kind, domain in enumerate(partition.domains):
            found = _HOST.fullmatch(host.removesuffix(f".{domain}")) if host.endswith(f".{domain}") else None
            if found is not None and found["region"] and found["region"] not in _WHOLE_PARTITION:
                own = of_region(found["region"]).domains[kind]
                return f"https://{host.removesuffix(domain)}{own}" if own != domain else ""
    return ""


def _placed(service: str, label: str, partition: Partition) -> AwsHost | None:
    """Return the host of ``service``; GovCloud shares its suffixes with ``aws``, so its label decides.

    None if AWS has no such host: a region under another partition's suffix, such as
    ``sts.cn-north-1.amazonaws.com``, or a label of IAM's before STS.
    """
    if label in _WHOLE_PARTITION:
        named = _GOV if label == "us-gov" else partition if partition is not _GOV else AWS
        return AwsHost(service, "", named) if service == IAM else None
    if partition.domains == AWS.domains:
        partition = of_region(label)
        return AwsHost(service, label, partition) if partition.domains == AWS.domains else None
    return AwsHost(service, label, partition) if not label or of_region(label) is partition else None


def of_region(region: str) -> Partition:
    """Return the partition of a region; an unknown region is in ``aws``, as for the SDKs."""
    return next((one for one in PARTITIONS if region.startswith(one.regions)), AWS)


def signing_region(service: str, url: str, region: str) -> str:
    """Return the region that requests to ``url`` are signed for; ``region`` is the one configured, or empty.

    An AWS host determines it. For IAM elsewhere (a proxy), it is that of the configured partition.
    """
    host = aws_host(url)
    if host is not None:
        return host.signing_region
    return of_region(region).iam_region if service == IAM else region


def others(partition: str, arns: Mapping[str, str]) -> dict[str, str]:
    """Return the ``arns``, by path, with another partition than ``partition``."""
    return {
        path: named
        for path, arn in arns.items()
        if (named := arn.split(":", 2)[1] if arn.count(":") > 1 else "") in NAMES and named != partition
    }
