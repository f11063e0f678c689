"""A rate limiter's slot, held while a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lessor_server.engine.aws.rate_limiter import Priority, RateLimiter


@asynccontextmanager
async def slot(limiter: RateLimiter, priority: Priority = Priority.ISSUE) -> AsyncIterator[None]:
    """Wait for a slot, and give it back, as a call to AWS does."""
    if not limiter.try_acquire(priority):
        await limiter.acquire(priority)
    try:
        yield
    finally:
        limiter.release()
