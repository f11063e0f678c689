"""Waits until AWS accepts a new key.

IAM is eventually consistent (IAM User Guide, "Troubleshoot IAM: changes that I make are not always
immediately visible"). A key that STS accepts in three consecutive checks will most likely be
accepted everywhere; that verifies neither policies nor other regions.
"""

from __future__ import annotations

import asyncio

from lessor_server.domain.aws.iam_calls import AccessKey
from lessor_server.domain.aws.sts_calls import VerifyKey
from lessor_server.domain.errors.base import LessorError
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.issuing.request import Credentials

CHECKS, PAUSE_SECONDS, DEADLINE_MARGIN_SECONDS = 3, 0.5, 0.5


async def wait_until_accepted(roots: Roots, credentials: Credentials, seconds: float, until: float) -> bool:
    """Return whether STS accepted the key in three consecutive checks, 0.5 s apart.

    It takes at most ``seconds``, and ends 0.5 s before ``until`` (the loop's time) at the latest.
    """
    loop = asyncio.get_running_loop()
    key = AccessKey(credentials.lease.access_key_id, credentials.secret, credentials.token)
    try:
        async with asyncio.timeout_at(min(loop.time() + seconds, until - DEADLINE_MARGIN_SECONDS)):
            caller = roots.caller(await roots.get(credentials.lease.mount))
            running = 0
            while True:
                running = running + 1 if not isinstance(await caller.call(VerifyKey(key)), LessorError) else 0
                if running == CHECKS:
                    return True
                await asyncio.sleep(PAUSE_SECONDS)
    except (TimeoutError, LessorError):  # the credential was made, and is its caller's either way
        return False
