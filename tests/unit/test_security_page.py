"""Checks that the threat model names tests that exist, and that the files of docs/hardening.md are valid."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lessor_server.settings.access_file import load_access_rules
from lessor_server.settings.model import load
from tests.support.audit_lines import PUBLIC, chain_of, last_of
from tests.support.certificates import Authority
from tests.support.readme import blocks

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "SECURITY.md"
HARDENING = ROOT / "docs" / "hardening.md"
UNIT = ROOT / "deploy" / "systemd" / "lessor.service"
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
ANY_TEST = re.compile(r"`[^`]*(?:\.py|::)[^`]*`")
HEADER = ["threat", "what stops it", "test that attacks it", "out of reach"]
STRIDE = (
    "Spoofing",
    "Tampering",
    "Repudiation",
    "Information disclosure",
    "Denial of service",
    "Elevation of privilege",
)


def cells(line: str) -> list[str]:
    """Return the cells of one line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def rows(section: str) -> list[list[str]]:
    """Return the rows of the table of a section, below its header."""
    text = SECURITY.read_text(encoding="utf-8").partition(f"### {section}\n")[2].partition("\n### ")[0]
    header, line, *rest = (one for one in text.splitlines() if one.startswith("|"))
    assert cells(header) == HEADER
    assert set(line) <= set("|- ")
    return [cells(one) for one in rest]


def functions(path: str) -> set[str]:
    """Return the names of the functions at the top of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("section", STRIDE)
def test_every_threat_says_what_stops_it_which_test_attacks_it_and_what_is_out_of_reach(section: str) -> None:
    found = rows(section)
    assert len(found) > 5
    assert [row for row in found if len(row) != len(HEADER) or "" in row] == []
    assert [row[0] for row in found if not NAMED.search(row[2])] == []


def test_every_test_that_the_threat_model_names_exists() -> None:
    text = SECURITY.read_text(encoding="utf-8")
    named = set(NAMED.findall(text))
    assert len(named) > 200
    missing = {path for path, _ in named if not (ROOT / path).is_file()}
    assert missing == set()
    defined = {path: functions(path) for path, _ in named}
    assert [f"{path}::{name}" for path, name in sorted(named) if name not in defined[path]] == []


def test_no_test_is_named_in_another_form() -> None:
    """It would not be checked."""
    named = ANY_TEST.findall(SECURITY.read_text(encoding="utf-8"))
    assert [one for one in named if not NAMED.fullmatch(one)] == []


@pytest.mark.parametrize("page", [SECURITY, HARDENING])
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))
    assert len(links) > 3
    for path, anchor in links:
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{path}#{anchor}"


def toml_files(page: str) -> dict[str, str]:
    """Return the files of a page by the path in their first line."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    files = [block.text for block in blocks(text) if block.kind == "toml"]
    return {text.partition("\n")[0].removeprefix("# "): text for text in files}


@pytest.mark.parametrize("page", ["hardening", "deployment"])
def test_the_settings_of_a_page_are_valid_with_the_variables_of_the_unit(tmp_path: Path, page: str) -> None:
    """Only the paths are replaced."""
    authority = Authority(tmp_path)
    pair = authority.sign("localhost")
    files = toml_files(page)
    etc, credentials = tmp_path / "etc" / "lessor", tmp_path / "credentials"
    for folder in (
        etc,
        credentials,
        *(tmp_path / one for one in ("var/lib", "var/log/lessor", "run/collector")),
    ):
        folder.mkdir(parents=True)
    for path, source in (
        (credentials / "tls-cert", pair.cert),
        (credentials / "tls-key", pair.key),
        (etc / "client-ca.pem", authority.ca),
    ):
        path.write_bytes(source.read_bytes())
    (credentials / "sealing-key").write_bytes(bytes(32))
    (etc / "access.toml").write_text(files["/etc/lessor/access.toml"], encoding="utf-8")
    written = etc / "lessor.toml"
    text = re.sub(r'"(/[\w./-]+)"', rf'"{tmp_path}\g<1>"', files["/etc/lessor/lessor.toml"])
    written.write_text(text, encoding="utf-8")
    for file in (*etc.iterdir(), *credentials.iterdir()):
        file.chmod(0o600)
    settings = load(written, unit_variables(tmp_path / "var" / "lib", credentials))
    assert not settings.warnings
    assert not settings.access.root_token
    assert settings.audit.is_on
    assert {one.client_auth for one in settings.listen} == {"require" if page == "hardening" else "none"}


def unit_variables(state: Path, credentials: Path) -> dict[str, str]:
    """Return the variables of the unit, with the directories that systemd would put into them."""
    lines = re.findall(r"^Environment=(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: one.replace("%S", str(state)).replace("%d", str(credentials)) for name, one in lines}


@pytest.mark.parametrize("page", ["hardening", "deployment"])
def test_the_access_file_of_a_page_is_valid(page: str) -> None:
    rules = load_access_rules(toml_files(page)["/etc/lessor/access.toml"], "access.toml")
    assert rules.identities


def scripts() -> list[str]:
    """Return what the hardening page tells to type or to save as a script."""
    return [block.text for block in blocks(HARDENING.read_text(encoding="utf-8")) if block.kind == "sh"]


def test_an_upgrade_keeps_nothing_of_the_version_before() -> None:
    """Versions of two commits may be equal, so pip would call a wheel installed already."""
    (install,) = [one for one in scripts() if "pip wheel" in one]
    before, _, after = install.partition("python3 -m venv")
    assert re.search(r"^rm -rf build dist .*\$new$", before, re.MULTILINE)
    assert "python3 -m venv $new" in after
    assert [line for line in after.splitlines() if ".whl" in line and "--force-reinstall" in line]


@pytest.mark.clients
def test_the_daily_script_of_the_hardening_page_verifies_each_day_from_the_note_of_the_day_before(
    tmp_path: Path,
) -> None:
    """Only its paths are replaced."""
    (script,) = [one for one in scripts() if one.startswith("#!")]
    for path, mine in (
        ("/root/lessor-audit", tmp_path),
        ("/var/log/lessor", tmp_path),
        ("/opt/lessor/bin", Path(sys.executable).parent),
    ):
        assert path in script
        script = script.replace(path, str(mine))
    (tmp_path / "audit-key.pub").write_text(f"{PUBLIC}\n")
    lines, log, old = chain_of(12), tmp_path / "audit.log", tmp_path / "audit.log.1"

    def run() -> tuple[int, str]:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    log.write_bytes(b"".join(lines[:4]))
    assert run() == (0, "")
    log.rename(old)
    log.write_bytes(b"".join(lines[4:]))
    assert run() == (0, "")
    log.write_bytes(b"".join(lines[4:-1]))
    code, printed = run()
    assert (code, "cut off: record 12" in printed) == (1, True)
    log.write_bytes(b"".join(lines[4:]))
    old.unlink()
    (tmp_path / "first").write_text(f"{last_of(lines[:4])}\n")
    assert run() == (0, "")
