"""The real gateway over stand-ins for AWS, and roots that lead there."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lessor_server.adapters.aws.assume_chain import ANY_PLACES
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.aws.query_client import QueryClient
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.clock import SystemClock
from lessor_server.domain.root import Hop, Root, RootConfig
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

KEY = "AKIAROOTOFTHETESTS00"
NOBODY_THERE = "http://127.0.0.1:1"


@asynccontextmanager
async def gateway(
    *urls: str, now: Callable[[], float] | None = None, token_places: TokenPlaces = ANY_PLACES
) -> AsyncIterator[AwsGateway]:
    """Run a gateway that may reach these endpoints; ``now`` is the clock by which sessions age."""
    async with QueryClient("lessor/test", SystemClock().wall) as client:
        yield AwsGateway(client, Routes((*urls, NOBODY_THERE)), "lessor-test", now, token_places)


def root(url: str, mount: str = "aws", version: int = 1, **changes: Any) -> Root:
    """Return a root with a key pair at ``url``; ``changes`` are fields of its config."""
    config = RootConfig(KEY, Secret("not-a-secret"), "us-east-1", url, url)
    return Root(mount, version, "", replace(config, **changes))


def chained(root: Root, *hops: str | Hop) -> Root:
    """Return the root with this chain of role ARNs or hops."""
    chain = tuple(hop if isinstance(hop, Hop) else Hop(hop) for hop in hops)
    return replace(root, config=replace(root.config, assume_chain=chain))


def token_file(path: Path, **claims: object) -> str:
    """Write an unsigned JSON web token with these claims, and return its path."""
    path.write_text(f"{json_web_token({'alg': 'RS256'}, claims)}\n")
    return str(path)


def json_web_token(header: object, claims: object) -> str:
    """Return a token with this header, these claims and an invalid signature."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), b"signed by nobody")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
