"""A command without a role asks for it at a terminal, and fails without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import Lessor
from tests.support.exec_world import at_home, states
from tests.support.server_process import ServerProcess
from tests.support.terminal import at_terminal

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("typed", ["riter\n", "2\n", "writer\n", "nothing\n\nreader\n", "e\n2\n"])
async def test_a_role_is_chosen_by_number_name_or_a_part_of_it(
    server: ServerProcess, lessor: Lessor, tmp_path: Path, mount: str, typed: str
) -> None:
    for name in ("reader", "writer", "app"):
        await lessor.put_role(mount, name)
    environment = at_home(tmp_path, server).environment
    words = ("exec", "--mount", mount, "--wait-usable", "0s", "--", "sh", "-c", 'echo "role=$LESSOR_ROLE"')
    done = await at_terminal(*words, folder=tmp_path, environment=environment, typed=typed)
    assert done.code == 0, done.out
    wanted = "reader" if "reader" in typed or typed == "2\n" else "writer"
    assert f"role={wanted}" in done.out
    assert set(await states(lessor, f"{mount}/")) == {"GONE"}


async def test_creds_asks_too_and_without_a_terminal_the_role_is_required(
    server: ServerProcess, lessor: Lessor, tmp_path: Path, mount: str
) -> None:
    await lessor.put_role(mount, "only")
    lessor_cli = at_home(tmp_path, server)
    words = ("creds", "--mount", mount)
    done = await at_terminal(*words, folder=tmp_path, environment=lessor_cli.environment)
    assert done.code == 0, done.out
    assert "AKIA" in done.out
    refused = await lessor_cli(*words)
    assert refused.code == 2
    assert "Missing argument 'ROLE'" in refused.err
