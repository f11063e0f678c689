"""Walks the tutorial with the Python client: a role, a key, a renewal, the revocation, an error."""

from __future__ import annotations

import asyncio
import os

import lessor

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}],
}


async def main() -> None:
    """Print one line for each step."""
    async with lessor.Client.from_environ() as client:  # LESSOR_ADDR, LESSOR_TOKEN and the like
        info = await client.get_info()
        print("version", info.version)

        stored = await client.put_role(name="reader", credential_type="IAM_USER", policy_document=POLICY)
        print("role", stored.role.name)

        # The block keeps the lease renewed, and revokes it at its end.
        async with client.lease("reader", ttl="15m", reason="the Python example") as lease:
            print("issued", lease.access_key)
            await describe_regions(lease)
            renewed = await client.renew_lease(lease_id=lease.lease_id, increment="1h")
            print("renewed for", renewed.lease_duration.seconds, "s")
        found = (await client.lookup_lease(lease_id=lease.lease_id)).lease
        print("revoked", found.State.Name(found.state))

        try:
            await client.generate_credentials(role="nobody")
        except lessor.NotFound as error:
            print("refused", error.reason)


async def describe_regions(lease: lessor.Lease) -> None:
    """Use the key, if aioboto3 is installed and AWS_ENDPOINT_URL names the embedded AWS."""
    try:
        import aioboto3
    except ImportError:
        return
    if "AWS_ENDPOINT_URL" in os.environ:
        session = aioboto3.Session(lease.access_key, lease.secret_key, region_name="us-east-1")
        async with session.client("ec2") as ec2:
            assert (await ec2.describe_regions())["Regions"]


if __name__ == "__main__":
    asyncio.run(main())
