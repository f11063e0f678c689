"""A command without a role asks for it at a terminal, and fails without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import Lessor
from tests.support.exec_world import at_home, states
from tests.support.server_process import ServerProcess
from tests.support.terminal import at_terminal

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    ("typed", "wanted"), [("riter\n", "writer"), ("e rea\n", "reader"), ("\x1b[B\n", "reader")]
)
async def test_exec_without_a_role_runs_the_program_with_the_chosen_one(
    server: ServerProcess, lessor: Lessor, tmp_path: Path, mount: str, typed: str, wanted: str
) -> None:
    for name in ("reader", "writer", "app"):
        await lessor.put_role(mount, name)
    environment = at_home(tmp_path, server).environment
    words = ("exec", "--mount", mount, "--wait-usable", "0s", "--", "sh", "-c", 'echo "role=$LESSOR_ROLE"')
    done = await at_terminal(*words, folder=tmp_path, environment=environment, typed=typed)
    assert done.code == 0, done.out
    assert f"role={wanted}" in done.out
    assert set(await states(lessor, f"{mount}/")) == {"GONE"}


async def test_without_a_terminal_the_role_is_required(server: ServerProcess, tmp_path: Path) -> None:
    refused = await at_home(tmp_path, server)("exec", "--", "true")
    assert refused.code == 2
    assert "Missing argument 'ROLE'" in refused.err
