"""Checks that the commands of the pages by task print what the pages show."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.dev_server import ANY_PORTS, dev
from tests.support.readme import Printed, Step, looks_like, steps, walk

TASKS = Path(__file__).parents[2] / "docs" / "tasks"
# The first counts leases.
PAGES = ("five-minutes", "iam-user", "assumed-role", "federation-token", "session-token", "static-role")
STEPS = [(name, step) for name in PAGES for step in steps((TASKS / f"{name}.md").read_text(encoding="utf-8"))]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="walked")
async def walk_through(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Printed]:
    """Walk all pages with one dev server, on ports that the system chooses."""
    printed = {}
    async with dev(tmp_path_factory.mktemp("dev"), *ANY_PORTS, "--token", "tutorial-token-1") as running:
        for name in PAGES:
            page = (TASKS / f"{name}.md").read_text(encoding="utf-8")
            here = page.replace("127.0.0.1:50051", running.address).replace(
                "http://127.0.0.1:5000", running.aws
            )
            shown = await walk(here, steps(here), tmp_path_factory.mktemp(name))
            printed |= {(name, line): answer for line, answer in shown.items()}
    return printed


@pytest.mark.parametrize(
    ("name", "step"), [pytest.param(name, step, id=f"{name}-{step.line}") for name, step in STEPS]
)
async def test_the_commands_of_a_task_print_what_its_page_shows(
    walked: dict[tuple[str, int], Printed], name: str, step: Step
) -> None:
    answer = walked.get((name, step.line))
    assert answer is not None, "not reached: a block before it did not end"
    assert answer.failed == step.is_refused, answer.text
    shown = step.shown
    assert shown is None or looks_like(shown, answer.text), answer.text
