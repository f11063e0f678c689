"""Runs a client in Node that is generated from the protos at run time."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.installed import NODE_SOURCES, ROOT, node_modules
from tests.support.server_process import ServerProcess, bare_environment

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def modules() -> Path:
    """Return a folder with the packages of npm; they are kept under build/ for the next run."""
    return node_modules()


async def walk(modules: Path, server: ServerProcess, mount: str) -> dict[str, Any]:
    """Run the client and return what came of each of its steps."""
    words = (str(NODE_SOURCES / "walk.js"), str(modules), str(ROOT / "protos"), str(ROOT / "docs"), mount)
    process = await asyncio.create_subprocess_exec(
        "node", *words, env={**bare_environment(), **server.client_env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    found: dict[str, Any] = json.loads(out)
    return found


async def test_a_client_in_node_works(modules: Path, server: ServerProcess, mount: str) -> None:
    """A policy as a plain object arrives empty and is refused with a hint."""
    found = await walk(modules, server, mount)
    assert found["info"]["store_kind"] == "sqlite"
    for refused in (found["plain"], found["masked"]):
        assert refused["code"] == "INVALID_ARGUMENT"
        assert refused["details"].startswith("role.policy_document: is an empty object; ")
        assert "proto-loader" in refused["details"]
    assert found["converted"]["role"]["etag"]
    assert found["issued"]["access_key"].startswith("AKIA")
    assert found["lease"]["lease"]["reason"] == "a walk by Node"
    assert found["revoked"]["outcome"] == "GONE"
