"""Builds the site of the docs, and checks its links, its pages, and that each command on a page is tested."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

from lessor.cli import main
from tests.support.readme import blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TASKS = ("five-minutes", "iam-user", "assumed-role", "federation-token", "session-token", "static-role")
RUN = {
    "index",
    "on-call",
    "access",
    "audit",
    "running",
    "sessions",
    "roots",
    "clients",
    "cli",
    "exec",
    "vault",
} | {f"tasks/{name}" for name in TASKS}
"""Pages whose blocks a test types: tests/e2e/test_readme.py, test_access_docs.py, test_task_pages.py, …"""
FETCHING = {"mermaid", "md-source", "glightbox"}
"""Classes of elements for which the script of the theme fetches from elsewhere."""
NOT_RUN = re.compile(r"^<!-- not run: .{10,} -->$", re.MULTILINE)


class Links(HTMLParser):
    """Collects where a page links to, the ids that it has, and what it loads."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        self.classes |= set(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.targets.add(found["href"])
        if tag in {"script", "img", "iframe"} and "src" in found:
            self.loaded.add(found["src"])
        if tag == "link" and found.get("rel") not in {"canonical", "prev", "next"}:
            self.loaded.add(found.get("href", ""))


def site_module() -> ModuleType:
    """Import docs/site.py."""
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", name="site")
def build(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Links]:
    """Build the site as ``make docs`` does; return its pages by their paths."""
    folder = tmp_path_factory.mktemp("site")
    module = site_module()
    module.SOURCES = folder / "sources"
    module.main()
    config = (ROOT / "mkdocs.yml").read_text()
    for before, after in (("build/site-sources", "sources"), ("build/site", "site")):
        assert f": {before}\n" in config
        config = config.replace(f": {before}\n", f": {after}\n")
    (folder / "mkdocs.yml").write_text(config)
    words = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = (folder / "site").rglob("*.html")
    return {str(path.relative_to(folder / "site")): Links(path.read_text()) for path in pages}


def test_every_page_is_built_and_in_the_navigation(site: dict[str, Links]) -> None:
    pages = {name.removesuffix(".md") for name in site_module().pages()}
    built = {name.removesuffix(".html") for name in site} - {"404"}
    assert {re.sub(r"\bREADME$", "index", name) for name in pages} == built
    # yaml can't read the tag of mermaid, which the navigation is not a part of.
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = {page for part in yaml.safe_load(text) for page in leaves_of(part)}
    assert {f"{name}.md" for name in pages if not re.match(r"decisions/\d", name)} == named


def leaves_of(part: object) -> list[str]:
    """Return the pages of a part of the navigation."""
    match part:
        case dict():
            return [page for one in part.values() for page in leaves_of(one)]
        case list():
            return [page for one in part for page in leaves_of(one)]
    return [str(part)]


def test_no_link_is_dead(site: dict[str, Links]) -> None:
    dead = []
    for name, page in site.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            there = name if not parts.path else str((Path("/") / name).parent / unquote(parts.path))
            there = str(Path(there).resolve() if there.startswith("/") else Path("/") / there).lstrip("/")
            if there in {"", "."}:
                there = "index.html"
            anchor = unquote(parts.fragment)
            if there not in site or (anchor and anchor not in site[there].ids):
                dead.append(f"{name}: {target}")
    assert dead == []
    assert sum(len(page.targets) for page in site.values()) > 1_000


def test_every_page_can_be_reached_from_another(site: dict[str, Links]) -> None:
    linked = {
        str((Path("/") / name).parent.joinpath(unquote(urlsplit(target).path)).resolve()).lstrip("/")
        for name, page in site.items()
        for target in page.targets
        if urlsplit(target).path and not urlsplit(target).scheme
        if (Path(name).parent / unquote(urlsplit(target).path)).name != Path(name).name
    }
    assert set(site) - linked - {"404.html", "index.html"} == set()


def test_a_dead_link_is_found() -> None:
    """Otherwise the test above could not fail."""
    page = Links('<a href="reasons.html#none">x</a><h2 id="here">y</h2><script src="a.js"></script>')
    assert (page.targets, page.ids, page.loaded) == ({"reasons.html#none"}, {"here"}, {"a.js"})


def test_only_links_are_rewritten_and_diagrams_are_left_out() -> None:
    module = site_module()
    names = {path.resolve(): name for name, path in module.pages().items()}
    text = "[`a`](access.md) `[a](access.md)`\n\n```sh\n[a](access.md)\n```\n\n```mermaid\nx\n```\n\nend\n"
    file = DOCS / "tasks" / "kubernetes.md"
    text = text.replace("access.md", "../access.md")
    assert module.rewrite(text, file, names) == text.partition("```mermaid")[0] + "end\n"
    assert module.rewrite("[a](../../deploy/x)", file, names) == f"[a]({module.REPOSITORY}/deploy/x)"


def test_links_to_files_of_the_repository_lead_to_files_that_exist(site: dict[str, Links]) -> None:
    address = site_module().REPOSITORY
    found = {one.partition("#")[0] for page in site.values() for one in page.targets}
    named = {one.removeprefix(address) for one in found if one.startswith(f"{address}/")}
    assert len(named) > 5
    assert [one for one in named if not (ROOT / unquote(one).lstrip("/")).exists()] == []


def test_each_reason_has_the_heading_that_errors_link_to(site: dict[str, Links]) -> None:
    titles = re.findall(r"^## (\w+)$", (DOCS / "reasons.md").read_text(), re.MULTILINE)
    assert len(titles) > 50
    assert {title.lower() for title in titles} <= site["reasons.html"].ids


def test_the_site_loads_nothing_from_elsewhere(site: dict[str, Links]) -> None:
    """A reader in a closed network has all of it, and nobody learns what it is that they read.

    The script of the theme fetches what draws diagrams, and what GitHub knows of a repository, if a page has
    such an element.
    """
    assert {one for page in site.values() for one in page.classes & FETCHING} == set()
    loaded = {one for page in site.values() for one in page.loaded}
    assert len(loaded) > 2
    assert {one for one in loaded if urlsplit(one).netloc} == set()


# --- commands -------------------------------------------------------------------------------------------


def all_pages() -> list[str]:
    """Return the names of all pages below docs/, without decisions."""
    found = (str(path.relative_to(DOCS)).removesuffix(".md") for path in DOCS.rglob("*.md"))
    return sorted(name for name in found if not name.startswith("decisions/"))


@pytest.mark.parametrize("name", all_pages())
def test_the_commands_of_a_page_are_run_by_a_test_or_marked(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    typed = [block for block in blocks(text) if block.kind in {"sh", "console"}]
    assert not typed or name in RUN or NOT_RUN.search(text), "run it in a test, or say why not"


def test_the_home_page_shows_what_a_task_runs() -> None:
    task = (DOCS / "tasks" / "five-minutes.md").read_text()
    shown = list(blocks((DOCS / "index.md").read_text()))
    assert [block.kind for block in shown] == ["sh", "text"]
    assert all(block.text in task for block in shown)


def command_lines(name: str) -> list[str]:
    """Return each line on a page that begins with ``lessor``, and is typed as it is written."""
    page = (DOCS / f"{name}.md").read_text()
    found: list[str] = []
    for block in blocks(page):
        if block.kind in {"sh", "console"}:
            lines = block.text.replace("\\\n", " ").splitlines()
            found += [line for line in lines if re.match(r"lessor [a-z]", line)]
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    inline = (" ".join(one.split()) for one in re.findall(r"`(lessor [a-z][^`]+)`", text))
    found += [line for line in inline if not re.search(r"[\[{…|]", line)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", all_pages())
def test_each_command_on_a_page_exists(name: str) -> None:
    """Its options, too: a page that is not run would keep an old one."""
    for line in command_lines(name):
        require_command(line)


def test_there_are_commands_on_the_pages() -> None:
    assert sum(len(command_lines(name)) for name in all_pages()) > 200


def require_command(line: str) -> None:
    """Assert that a line names a command and options of it."""
    words = shlex.split(re.split(r" [|>&2]|\$\(|;", line)[0] if "'" not in line else line)[1:]
    command: click.Command = main.root
    context = click.Context(command)
    for word in itertools.takewhile(lambda word: word != "--", words):  # behind it is another program
        if isinstance(command, click.Group):
            _, child, _ = command.resolve_command(context, [word])  # a command of the server is imported here
            assert child is not None, f"{line}: {word}"
            command = child
            context = click.Context(command, parent=context)
        elif word.startswith("--"):
            options = {one for parameter in command.params for one in parameter.opts}
            assert word.partition("=")[0] in options | {"--help"}, line
