"""Checks contexts: which one a command line uses, and what it sets."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import click
import pytest

from lessor.cli import contexts
from lessor.cli.contexts import Context, Contexts
from lessor.cli.main import run

PROD = Context("prod.example:443", cacert="/ca.pem", token_file="/prod-token")
OPEN = Context("lab.example:50051")
Environ = dict[str, str]


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    """Return an environment with two contexts, and a token for another server."""
    found = {"XDG_CONFIG_HOME": str(tmp_path), "LESSOR_TOKEN": "for-another-server"}
    contexts.save(Contexts({"prod": PROD, "lab": OPEN}), found)
    return found


def adopted(environ: Environ, *choices: dict[str, str]) -> Environ:
    """Return the variables of a connection after the options of a command line chose, in this order."""
    found = dict(environ)
    with click.Context(click.Command("lessor")):
        for one in choices:
            contexts.adopt(found, one)
    return {name: value for name, value in found.items() if name in contexts._CONNECTION}


def test_a_file_is_read_as_it_was_written(environ: Environ) -> None:
    odd = Context('unix:/a "b"\\c\n', token_file="/tmp/ü\x7f")
    contexts.save(Contexts({"a.b": odd, "prod": PROD}, "prod"), environ)
    assert contexts.load(environ) == Contexts({"a.b": odd, "prod": PROD}, "prod")
    assert stat.S_IMODE(contexts.path(environ).stat().st_mode) == 0o600


def test_a_context_with_a_credential_hides_the_callers_token(environ: Environ) -> None:
    """The token may belong to another server."""
    assert adopted(environ, {"context": "prod"}) == {
        "LESSOR_ADDR": PROD.addr,
        "LESSOR_CACERT": PROD.cacert,
        "LESSOR_TOKEN_FILE": PROD.token_file,
    }


def test_a_context_without_a_credential_keeps_the_callers_token(environ: Environ) -> None:
    environ["LESSOR_CACERT"] = "/other.pem"
    expected = {"LESSOR_ADDR": OPEN.addr, "LESSOR_TOKEN": "for-another-server"}
    assert adopted(environ, {"context": "lab"}) == expected


def test_a_second_choice_starts_from_the_callers_variables(environ: Environ) -> None:
    """Nothing of the first context reaches the server of the second."""
    expected = {"LESSOR_ADDR": OPEN.addr, "LESSOR_TOKEN": "for-another-server"}
    assert adopted(environ, {"context": "prod"}, {"context": "lab"}) == expected
    environ["LESSOR_CONTEXT"] = "prod"
    assert adopted(environ, {}, {"address": "other:1"}) == {"LESSOR_TOKEN": "for-another-server"}


def test_the_current_context_counts_unless_an_address_is_named(environ: Environ) -> None:
    contexts.save(Contexts({"prod": PROD, "lab": OPEN}, "lab"), environ)
    assert adopted(environ, {})["LESSOR_ADDR"] == OPEN.addr
    assert adopted(environ, {"address": "other:1"}) == {"LESSOR_TOKEN": "for-another-server"}
    environ["LESSOR_CONTEXT"] = "prod"
    assert adopted(environ, {})["LESSOR_ADDR"] == PROD.addr
    environ |= {"LESSOR_CONTEXT": "", "LESSOR_ADDR": "mine:1"}
    assert adopted(environ, {})["LESSOR_ADDR"] == "mine:1"


def test_an_unknown_context_is_refused_with_the_known_ones(environ: Environ) -> None:
    with pytest.raises(click.UsageError, match="lab, prod"):
        adopted(environ, {"context": "prd"})
    with pytest.raises(click.UsageError, match="give one of them"):
        adopted(environ, {"context": "prod", "address": "other:1"})


@pytest.mark.parametrize(
    "content",
    [
        "current",
        "current = 1",
        "contexts = 1",
        "[contexts.a]",
        "[contexts.a]\naddr = 1",
        '[contexts.a]\naddr = "x"\ntoken = "s3cret-token"',
        "\xff",
        "#" * (contexts.MAX_BYTES + 1),
    ],
)
def test_a_file_in_another_form_is_refused_with_its_name(content: str, environ: Environ) -> None:
    contexts.path(environ).write_text(content, encoding="latin-1")
    with pytest.raises(click.ClickException) as refused:
        contexts.load(environ)
    assert str(contexts.path(environ)) in refused.value.message
    assert "s3cret-token" not in refused.value.message


def test_contexts_are_added_listed_chosen_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in contexts._CONNECTION:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    Path("ca.pem").touch()
    add = ["context", "add", "prod", "--addr", "prod.example:443", "--cacert", "ca.pem"]
    assert run(add) == 0
    assert run(add) == 7
    assert run(["context", "add", "lab", "--addr", "lab.example:50051", "--use"]) == 0
    assert run(["context", "list", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["contexts"]
    assert [(one["name"], one["current"]) for one in listed] == [("lab", True), ("prod", False)]
    assert listed[1]["cacert"] == str(tmp_path / "ca.pem")
    assert run(["context", "use", "prod"]) == 0
    assert contexts.load(os.environ).current == "prod"
    assert run(["context", "remove", "prod"]) == 0
    assert contexts.load(os.environ).current == ""
    assert run(["context", "remove", "prod"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["prod", "--addr", "ftp://x"],
        ["a b", "--addr", "x:1"],
        ["prod", "--addr", "x:1", "--cacert", "not-there.pem"],
        ["prod", "--addr", "x:1", "--client-cert", "/dev/null"],
    ],
)
def test_a_context_that_could_not_be_used_is_not_added(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["context", "add", *arguments]) == 2
    assert not contexts.path(os.environ).exists()


def test_a_broken_file_does_not_stop_commands_that_reach_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    contexts.path(os.environ).parent.mkdir()
    contexts.path(os.environ).write_text("broken", encoding="utf-8")
    monkeypatch.delenv("LESSOR_ADDR", raising=False)
    assert run(["version"]) == 0
    assert run(["mounts"]) == 1
    assert run(["--address", "127.0.0.1:1", "mounts"]) == 6
