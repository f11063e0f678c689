"""Runs the examples of docs/clients.md against ``lessor dev``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_asyncio

from lessor.testing import DevServer, run_dev_server
from tests.support.readme import README, Printed, Step, looks_like, steps, walk

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

PAGE = (README.parent / "docs" / "clients.md").read_text(encoding="utf-8")
TYPED = [step for step in steps(PAGE) if not step.typed.startswith("pip ")]
FILES = ("first_lease.py", "regions.py", "errors.py", "test_reader.py")


@pytest.fixture(scope="module")
def running() -> Iterator[DevServer]:
    """Run a dev server for this page."""
    with run_dev_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def printed(running: DevServer, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Printed]:
    """Type all commands of the page once."""
    here = PAGE.replace("http://127.0.0.1:5000", running.aws_url)
    lines = {step.line for step in TYPED}
    todo = [step for step in steps(here) if step.line in lines]
    names = "\n".join(f"export {name}={value}" for name, value in running.environ.items())
    first = todo[0]
    todo[0] = type(first)(first.line, f"{names}\nexport PATH=$PWD/.venv/bin:$PATH\n{first.typed}", None)
    return await walk(here, todo, tmp_path_factory.mktemp("clients"))


@pytest.mark.parametrize("step", TYPED, ids=lambda step: step.typed.split()[-1])
async def test_an_example_prints_what_the_page_shows(printed: dict[int, Printed], step: Step) -> None:
    answer = printed[step.line]
    assert not answer.failed, answer.text
    assert step.shown is not None
    assert looks_like(step.shown, answer.text), answer.text


async def test_every_example_of_the_page_is_run() -> None:
    assert PAGE.count("```python\n") == len(FILES) == len(TYPED)
    assert all(f"# {name}\n" in PAGE for name in FILES)
