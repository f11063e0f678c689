"""Checks that the commands on README.md and other pages print what the pages show."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import pytest_asyncio

from lessor.cli import main
from lessor_server.services.config import ConfigService
from lessor_server.services.creds import CredsService
from lessor_server.services.lease import LeaseService
from lessor_server.services.role import RoleService
from lessor_server.services.system import SystemService
from lessor_server.settings.model import Settings, SettingsFile, load
from lessor_server.settings.sources import setting_paths
from tests.support.dev_server import ANY_PORTS, Dev, dev
from tests.support.readme import README, Printed, Step, looks_like, steps, walk

RUNNING, *TYPED_ALONG = (
    README.parent / "docs" / f"{name}.md" for name in ("running", "sessions", "roots", "cli", "exec", "vault")
)
SETTINGS = README.parent / "docs" / "settings.md"
TEXTS = {page: page.read_text(encoding="utf-8") for page in (README, RUNNING, SETTINGS, *TYPED_ALONG)}
ACCESS = README.parent / "docs" / "access.md"  # tests/e2e/test_access_docs.py types it
PAGE = TEXTS[README]
MAKE = [step for step in steps(PAGE) if step.typed.startswith("make ")]
[DEV, _] = [step for text in TEXTS.values() for step in steps(text) if step.typed.startswith("lessor dev ")]
TYPED = [
    (page, step)
    for page, text in TEXTS.items()
    for step in steps(text)
    if not step.typed.startswith(("make ", "lessor dev "))
]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


PROSE = {page: prose(page) for page in (*TEXTS, ACCESS)}
NAMED = sorted({line for text in PROSE.values() for line in re.findall(r"`lessor ([a-z][^`]*)`", text)})
SERVICES = (ConfigService, RoleService, CredsService, LeaseService, SystemService)

Walked = tuple[Dev, dict[tuple[Path, int], Printed]]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="walked")
async def walk_through(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """Walk the pages once, with a dev server started as they say, all on ports that the system chooses."""
    words = shlex.split(DEV.typed)[2:]
    printed = {}
    async with dev(tmp_path_factory.mktemp("dev"), *ANY_PORTS, *words) as running:
        for page, text in TEXTS.items():
            lines = {step.line for where, step in TYPED if where == page}
            here = on_its_ports(text, running)
            todo = [step for step in steps(here) if step.line in lines]
            shown = await walk(here, todo, tmp_path_factory.mktemp(page.stem))
            printed |= {(page, line): answer for line, answer in shown.items()}
    return running, printed


def on_its_ports(text: str, running: Dev) -> str:
    """Return a page with the addresses of the server that runs, and a free port for its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return (
        text.replace("127.0.0.1:50051", running.address)
        .replace("http://127.0.0.1:5000", running.aws)
        .replace("http://127.0.0.1:8200", running.http)
        .replace("0.0.0.0:50052", f"127.0.0.1:{port}")
        .replace("localhost:50052", f"localhost:{port}")
    )


@pytest.mark.e2e
@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("page", "step"), [pytest.param(page, step, id=f"{page.stem}-{step.line}") for page, step in TYPED]
)
async def test_the_commands_of_a_page_print_what_it_shows(walked: Walked, page: Path, step: Step) -> None:
    _, printed = walked
    assert (page, step.line) in printed, "not reached: a block before it did not end"
    answer = printed[page, step.line]
    assert answer.failed == step.is_refused, answer.text
    assert step.shown is None or looks_like(step.shown, answer.text), answer.text


@pytest.mark.e2e
@pytest.mark.clients
@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_the_dev_server_prints_what_the_page_shows(walked: Walked) -> None:
    running, _ = walked
    assert DEV.shown is not None
    assert looks_like(on_its_ports(DEV.shown, running), running.said), running.said


def test_the_page_is_compared_line_by_line() -> None:
    """A placeholder stands for part of a line or for whole lines."""
    assert looks_like("a …\n", "a   b c\n")
    assert looks_like("…\nb\n", "x\ny\nb\n")
    assert not looks_like("a …\n", "a\n")
    assert not looks_like("a …\n", "a b\nc\n")
    assert not looks_like("a\n", "a\nb\n")
    assert not looks_like("a.c\n", "abc\n")
    assert len(TYPED) > 40
    assert sum(step.shown is not None for _, step in TYPED) > 35


def test_the_make_targets_of_the_page_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert [step.typed for step in MAKE[:2]] == ["make demo\n", "make test\n"]
    targets = {line.split()[1] for step in MAKE for line in step.typed.splitlines()}
    targets |= set(re.findall(r"`make (\w+)`", PROSE[README]))
    assert targets <= set(re.findall(r"^([\w-]+):.*## ", makefile, re.MULTILINE))


def rows(page: Path, heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading of a page, each as its cells."""
    _, _, section = f"\n{TEXTS[page]}".partition(f"\n{heading}\n")
    assert section, heading
    [first, *_] = re.findall(r"(?:^\|.*\n)+", section.partition("\n#")[0] + "\n", re.MULTILINE)
    table = re.findall(r"^\| (.*) \|$", first, re.MULTILINE)
    return [re.split(r" *\| *", row) for row in table[2:]]


def test_each_setting_has_its_row() -> None:
    table = [[cell.strip("`") for cell in row] for row in rows(SETTINGS, "# Settings")]
    names = [row[0].split("`<br>`") for row in table]
    assert [name for name, _ in names] == [".".join(path) for path in setting_paths(SettingsFile)]
    for (name, variable), (_, default, meaning) in zip(names, table, strict=True):
        assert variable == f"LESSOR_{name.replace('.', '_').upper()}"
        assert meaning
        if default:
            assert load(None, {variable: default}) == Settings(), name
        else:
            value: object = Settings()
            for part in name.split("."):
                value = getattr(value, part, None)
            assert not value, name


def leaves(command: click.Command, name: str, context: click.Context | None = None) -> Iterator[str]:
    """Yield each command below a group, as a person types it."""
    here = click.Context(command, parent=context, info_name=name)
    if not isinstance(command, click.Group):
        yield name
        return
    for word in command.list_commands(here):
        child = command.get_command(here, word)
        assert child is not None
        yield from leaves(child, f"{name} {word}", here)


def test_each_command_is_on_the_page() -> None:
    commands = list(leaves(main.root, "lessor"))
    assert len(commands) > 20
    assert [name for name in commands if not re.search(rf"\b{name}\b", PAGE)] == []


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parse a command line as the real command would, without running it; UsageError where it is none."""
    context = command.make_context(command.name, words, parent=parent)
    if isinstance(command, click.Group):
        _, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        parse(child, rest, context)


def test_each_command_in_the_text_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policy.json", "secret"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    wrong = {}
    for line in NAMED:
        try:
            parse(main.root, shlex.split(line))
        except click.UsageError as error:
            wrong[line] = error.message
    assert wrong == {}


def test_each_exit_code_has_its_row() -> None:
    promised = re.findall(r"^    (\d+) ", main.__doc__ or "", re.MULTILINE)
    assert [row[0] for row in rows(README, "## Exit codes")] == promised


def test_every_rpc_is_served() -> None:
    """The page names none that is not."""
    methods = ((service, method.name) for service in SERVICES for method in service.DESCRIPTOR.methods)
    assert [name for service, name in methods if not hasattr(service, name)] == []


def places(text: str) -> set[str]:
    """Return the names by which the headings of a page are linked to."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_each_link_has_a_target(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`\n]*`", "", PROSE[page]))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, place = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not place or place in places(prose(target)), link
