"""Checks the settings of gRPC's core, which it reads once, when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

_SERVE = "import asyncio, lessor_server, grpc.aio\nasyncio.run(grpc.aio.server().stop(None))"


def said_by_grpc(**variables: str) -> str:
    """Return what gRPC's core writes when a new process has created a server."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GRPC_")}
    words = [sys.executable, "-c", _SERVE]
    done = subprocess.run(
        words, env=environment | variables, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stderr


def test_grpc_knows_the_experiments_that_the_server_sets() -> None:
    unknown = "Unknown experiment"
    assert unknown in said_by_grpc(GRPC_VERBOSITY="ERROR", GRPC_EXPERIMENTS="-no_such_experiment")
    assert unknown not in said_by_grpc(GRPC_VERBOSITY="ERROR")
