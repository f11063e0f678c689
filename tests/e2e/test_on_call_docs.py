"""Types the commands of docs/on-call.md at a server one of whose leases AWS refuses to revoke."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lessor.v1 import lease_pb2
from tests.support.clients import Lessor, until
from tests.support.command_line import CommandLine
from tests.support.readme import blocks
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

PAGE = (Path(__file__).parents[2] / "docs" / "on-call.md").read_text(encoding="utf-8")
FENCED = [line for block in blocks(PAGE) if block.kind == "console" for line in block.text.splitlines()]
INLINE = ("lessor lease revoke LEASE_ID --sync", "lessor reconcile", "lessor reload")


async def test_the_commands_for_a_night_show_what_the_page_says(
    tmp_path: Path, server: ServerProcess, lessor: Lessor, mount: str, aws: StandIn
) -> None:
    await lessor.put_role(mount)
    lease = (await lessor.generate(mount)).lease_id
    await aws.fault("refuse", "DeleteAccessKey", code="AccessDenied", status=403, times=1000)
    await lessor.leases.RevokeLease(lease_pb2.RevokeLeaseRequest(lease_id=lease))
    await until(lambda: lessor.lookup(lease), lambda found: found.last_error != "")
    command = CommandLine(tmp_path, server.client_env)
    printed = {}
    for line in FENCED:
        words = line.replace("LEASE_ID", lease).replace("aws/", f"{mount}/").split()[1:]
        if words[0] == "config":
            words += ["--mount", mount]
        if words[:2] == ["lease", "list"]:
            words.append(f"{mount}/")
        done = await command(*words)
        assert (done.code, done.err.startswith("lessor: can't")) == (0, False), (line, done)
        printed[line] = done.out
    assert lease in printed["lessor lease list --state revoking"]
    assert "AccessDenied" in printed["lessor lease lookup LEASE_ID"]
    await aws.clear_faults()
    done = await command("lease", "revoke", lease, "--sync")
    assert done.code == 0, done.err
    assert (await lessor.lookup(lease)).state == lease_pb2.Lease.State.GONE


async def test_the_commands_of_the_test_are_those_of_the_page() -> None:
    assert len(FENCED) >= 6
    text = re.sub(r"\s+", " ", PAGE)
    assert [line for line in INLINE if f"`{line}`" not in text] == []
