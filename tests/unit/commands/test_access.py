"""Checks ``lessor access check`` and ``lessor policy test``: their output and exit codes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lessor.cli.main import root
from tests.support.access_files import identity

TOKEN = "lsr_" + "a" * 49
ACCESS = f"""
[[policies]]
name = "deployer"
[[policies.rules]]
path = "aws/creds/deploy-*"
capabilities = ["read"]
max_ttl = "90m"
max_leases = 20
role_arns = ["arn:aws:iam::*:role/deploy-*"]
require = ["reason"]
forbid = ["mfa_code"]
[[policies.rules]]
path = "aws/*"
capabilities = ["list", "deny"]

[[policies]]
name = "team"
[[policies.rules]]
path = "aws/creds/{{{{identity.labels.team}}}}"
capabilities = ["read"]
[[policies.rules]]
path = "aws/roles"
capabilities = ["list"]
[[policies.rules]]
path = "aws/creds/deploy-*"
capabilities = ["list"]
max_ttl = "1h"

[[identities]]
name = "ci"
policies = ["deployer", "team"]
labels = {{ team = "payments" }}
token_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]

[[identities]]
name = "k8s/{{ns}}/{{sa}}"
policies = ["team"]
spiffe_id = "spiffe://example.org/{{ns}}/{{sa}}/{{kind}}"
labels = {{ team = "{{ns}}", kind = "{{kind}}" }}

[[identities]]
name = "gh/{{actor}}"
policies = ["repository"]
labels = {{ repository = "{{repository}}", kind = "repository-{{repository}}" }}
jwt = {{ issuer = "github", claims = {{ repository = "acme/*" }} }}

[[policies]]
name = "repository"
[[policies.rules]]
path = "aws/creds/{{{{identity.labels.kind}}}}"
capabilities = ["read"]

[[issuers]]
name = "github"
issuer = "https://issuer.example"
audiences = ["lessor"]
"""


@pytest.fixture(name="file")
def access_file(tmp_path: Path) -> Path:
    """Write an access file."""
    tmp_path.chmod(0o700)
    file = tmp_path / "access.toml"
    file.write_text(ACCESS, encoding="utf-8")
    return file


def run(*arguments: object) -> Result:
    """Run a command line."""
    done = CliRunner().invoke(root, [str(one) for one in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def test_a_file_without_problems_is_counted(file: Path) -> None:
    done = run("access", "check", file)
    assert (done.exit_code, done.stdout) == (0, "ok: 3 identities, 3 policies, 1 issuer\n")
    file.write_text(identity('dns_name = "a.example"'), encoding="utf-8")
    done = run("access", "check", file)
    assert (done.exit_code, done.output) == (0, "ok: 1 identity, 0 policies, 0 issuers\n")


def test_warnings_do_not_change_the_exit_code(file: Path) -> None:
    file.write_text(ACCESS.replace("aws/creds/deploy-*", "aws/cred/deploy-*"), encoding="utf-8")
    done = run("access", "check", file)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["ok: 3 identities, 3 policies, 1 issuer"]
    assert "warning: policies[0](deployer).rules[0].path: matches no path of any call" in done.stderr


def test_every_problem_of_a_file_is_a_line(file: Path) -> None:
    file.write_text('[[policies]]\nname = "root"\n[[identities]]\nname = "a"\n', encoding="utf-8")
    done = run("access", "check", file)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        f"{file}: policies[0](root).name: is reserved for the root token; choose another name",
        (
            f"{file}: identities[0](a): has no credential; "
            "give it one of token_sha256, spiffe_id, dns_name, jwt"
        ),
    ]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    done = run("access", "check", tmp_path / "none")
    assert done.exit_code == 1
    assert "can't be read" in done.output


def test_an_allowed_test_prints_the_rule_its_limits_and_the_runners_up(file: Path) -> None:
    done = run("policy", "test", "--file", file, "--identity", "ci", "aws/creds/deploy-web", "read")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "allowed: read on aws/creds/deploy-web, by ci (identities[0](ci))",
        (
            "rule: aws/creds/deploy-* [read, list] at "
            "policies[0](deployer).rules[0] and policies[1](team).rules[2]"
        ),
        "  max_ttl: 1h",
        "  max_leases: 20",
        "  role_arns: arn:aws:iam::*:role/deploy-*",
        "  require: reason",
        "  forbid: mfa_code",
        "runners-up:",
        "  aws/* [list, deny] at policies[0](deployer).rules[1]",
    ]


@pytest.mark.parametrize(
    ("path", "capability", "first", "second"),
    [
        ("aws/roles/x", "list", "denied", "rule: aws/* [list, deny] at policies[0](deployer).rules[1]"),
        ("aws/roles/", "list", "allowed", "rule: aws/roles [list] at policies[1](team).rules[1]"),
        ("aws/creds/deploy-x", "update", "denied", "rule: aws/creds/deploy-*"),
        ("sys/mounts/", "list", "denied", "no rule matches"),
    ],
)
def test_the_exit_code_says_whether_it_is_allowed(
    file: Path, path: str, capability: str, first: str, second: str
) -> None:
    done = run("policy", "test", "--file", file, "--identity", "ci", path, capability)
    lines = done.output.splitlines()
    assert done.exit_code == (0 if first == "allowed" else 1)
    assert lines[0] == f"{first}: {capability} on {path}, by ci (identities[0](ci))"
    assert lines[1].startswith(second)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--identity", "k8s/prod/app", "aws/creds/prod", "read"], 0),
        (["--identity", "k8s/prod/app", "aws/creds/app", "read"], 1),
        (["--identity", "k8s/prod/app", "--label", "team=prod", "aws/creds/prod", "read"], 0),
        (["--identity", "k8s/prod/app", "--label", "kind=x", "aws/creds/x", "read"], 1),
    ],
)
def test_labels_come_from_the_name_and_from_options(file: Path, words: list[str], code: int) -> None:
    assert run("policy", "test", "--file", file, *words).exit_code == code


def test_a_label_that_is_not_known_is_hinted_at(file: Path) -> None:
    words = ["policy", "test", "--file", file, "--identity", "gh/x"]
    done = run(*words, "aws/creds/repository-acme", "read")
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == (
        "hint: rules with the label kind match nothing here; give it with --label kind=VALUE"
    )
    # One label gives the value of its placeholder, and so the other.
    for label in ("repository=acme/x", "kind=repository-acme/x"):
        assert "hint" not in run(*words, "--label", label, "aws/creds/x", "read").output


def test_an_unknown_name_shows_those_of_the_file(file: Path) -> None:
    done = run("policy", "test", "--file", file, "--identity", "nobody", "a", "read")
    assert "give the name of a caller, as in ci, k8s/{ns}/{sa}, gh/{actor}" in " ".join(done.output.split())


def test_a_file_with_all_that_token_new_prints_names_the_fix(file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f'{TOKEN}\ntoken_sha256 = ["00"]\n', encoding="utf-8")
    done = run("policy", "test", "--file", file, "--token-file", tmp_path / "token", "a", "read")
    assert done.exit_code == 2
    assert "keep only the first, the token" in " ".join(done.output.split())
    assert TOKEN not in done.output


def test_a_fixed_token_is_found_by_its_digest(file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    done = run(
        "policy", "test", "--file", file, "--token-file", tmp_path / "token", "aws/creds/payments", "read"
    )
    assert done.exit_code == 0
    assert "by ci" in done.output
    assert TOKEN not in done.output


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (b"lsr_unknown-hush", "no identity of the file has this token"),
        (b"hush.hush.hush", "a JWT is not judged here, only a fixed token"),
        (b"\xff", "can't be read"),
        (None, "can't be read"),
    ],
)
def test_another_token_is_a_usage_error_that_does_not_show_it(
    file: Path, tmp_path: Path, token: bytes | None, text: str
) -> None:
    if token is not None:
        (tmp_path / "token").write_bytes(token)
    done = run("policy", "test", "--file", file, "--token-file", tmp_path / "token", "a", "read")
    assert done.exit_code == 2
    assert text in " ".join(done.output.split())
    assert "hush" not in done.output


@pytest.mark.parametrize(
    "words",
    [
        ["a", "read"],
        ["--identity", "ci", "--token-file", "x", "a", "read"],
        ["--identity", "ci", "a", "deny"],
        ["--identity", "ci", "a", "reed"],
        ["--identity", "ci", "a"],
        ["--identity", "nobody", "a", "read"],
        ["--identity", "root", "a", "read"],
        ["--identity", "k8s/prod", "a", "read"],
        ["--identity", "k8s/a b/c", "a", "read"],
        ["--identity", "ci", "--label", "team", "a", "read"],
        ["--identity", "ci", "--label", "te am=x", "a", "read"],
        ["--identity", "ci", "--label", "nope=x", "a", "read"],
        ["--identity", "ci", "--label", "team=other", "a", "read"],
        ["--identity", "k8s/prod/app", "--label", "team=dev", "a", "read"],
        ["--identity", "k8s/prod/app", "--label", "kind=a\nb", "a", "read"],
        ["--identity", "k8s/prod/app", "--label", f"kind={'a' * 257}", "a", "read"],
        ["--identity", "k8s/prod/app", "--label", "kind=a", "--label", "kind=b", "a", "read"],
        ["--identity", "gh/x", "--label", "repository=other/x", "a", "read"],
        ["--identity", "gh/x", "--label", "kind=acme/x", "a", "read"],
        ["--token-file", "x", "--label", "a=b", "a", "read"],
    ],
)
def test_wrong_usage_exits_with_2(file: Path, words: list[str]) -> None:
    done = run("policy", "test", "--file", file, *words)
    assert done.exit_code == 2
    assert done.output.startswith("Usage: ")


def test_a_broken_access_file_is_neither_allowed_nor_denied(file: Path) -> None:
    file.write_text("policies = 1", encoding="utf-8")
    done = run("policy", "test", "--file", file, "--identity", "ci", "a", "read")
    assert done.exit_code == 2
    assert f"{file}: policies: is a number, not a list" in done.output
