"""An instance's metadata service, version 2, as far as the SDK uses it for the instance's credentials.

Source: Amazon EC2 User Guide, "Use the Instance Metadata Service" and "Retrieve security credentials from
instance metadata".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.iam_user import iso

_CREDENTIALS = "/latest/meta-data/iam/security-credentials/"


@dataclass(slots=True)
class Imds:
    """A service that counts the requests for credentials; ``url`` is its address."""

    url: str = ""
    key_id: object = "AKIAOFTHEINSTANCE000"
    expiration: str = iso(4_000_000_000)
    fetched: int = field(default=0)

    async def token(self, _: web.Request) -> web.Response:
        """Answer with a session token, which version 2 requires first."""
        return web.Response(text="token", headers={"x-aws-ec2-metadata-token-ttl-seconds": "21600"})

    async def role(self, _: web.Request) -> web.Response:
        """Name the instance's role."""
        return web.Response(text="instance-role")

    async def credentials(self, _: web.Request) -> web.Response:
        """Return the instance's credentials, valid for a long time."""
        self.fetched += 1
        return web.json_response(
            {
                "Code": "Success",
                "AccessKeyId": self.key_id,
                "SecretAccessKey": "not-a-secret",
                "Token": "",
                "Expiration": self.expiration,
            }
        )


@asynccontextmanager
async def serving() -> AsyncIterator[Imds]:
    """Serve on loopback for the duration of the block."""
    imds = Imds()
    app = web.Application()
    app.router.add_put("/latest/api/token", imds.token)
    app.router.add_get(_CREDENTIALS, imds.role)
    app.router.add_get(_CREDENTIALS + "instance-role", imds.credentials)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        imds.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield imds
    finally:
        await runner.cleanup()
