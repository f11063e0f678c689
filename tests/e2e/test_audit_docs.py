"""Runs every example of docs/audit.md against a server with an audit file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import connect
from tests.support.readme import README, looks_like, steps, walk
from tests.support.server_process import TOKEN, serving
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

PAGE = (README.parent / "docs" / "audit.md").read_text(encoding="utf-8")


async def test_every_example_prints_what_the_page_shows(tmp_path: Path, aws: StandIn) -> None:
    file = tmp_path / "audit.log"
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_AUDIT_FILE": str(file)}
    async with serving(tmp_path, settings) as server:
        async with connect(server.address, TOKEN) as root:
            await root.enable("aws", aws.url)
            await root.put_role("aws", "reader")
        variables = {
            "PATH": '"$PWD/.venv/bin:$PATH"',
            "LESSOR_ADDR": server.address,
            "LESSOR_TOKEN": TOKEN,
            "LESSOR_AUDIT_FILE": str(file),
            "LESSOR_DATA_DIR": str(server.data_dir),
        }
        exports = "\n".join(f"export {name}={value}" for name, value in variables.items())
        page = f"```sh\n{exports}\n```\n\n{PAGE}"
        todo = steps(page)
        folder = tmp_path / "typed"
        folder.mkdir()
        printed = await walk(page, todo, folder)
    assert len(todo) > 3
    for step in todo:
        assert step.line in printed, f"not reached: {step.typed}"
        answer = printed[step.line]
        assert step.shown is None or looks_like(step.shown, answer.text), f"{step.typed}\n{answer.text}"
