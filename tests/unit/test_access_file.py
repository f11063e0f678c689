"""Checks how an access file is loaded, and that every problem is reported with its place."""

from __future__ import annotations

import ipaddress
import math
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.access.access_config import (
    AccessConfig,
    DnsMatch,
    JwtIssuer,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability, IssueLimits, Rule
from lessor_server.settings.access_file import load_access_file, load_access_rules
from lessor_server.settings.sources import SettingsError
from tests.support.access_files import DIGEST, TOKEN, identity, issuer, policy, problems
from tests.support.certificates import Authority

RULE = '{ path = "a", capabilities = ["read"] }'
JWT = identity('jwt = { issuer = "j" }')
OTHER_RULE = RULE.replace('"a"', '"b"')
FULL = f"""
[[policies]]
name = "deployer"
[[policies.rules]]
path = "aws/creds/deploy-*"
capabilities = ["read"]
max_ttl = "1h"
max_leases = 20
role_arns = ["arn:aws:iam::*:role/deploy-*"]
require = ["session_policy", "reason", "request_id"]
forbid = ["role_session_name"]
[[policies.rules]]
path = "aws/creds/{{{{identity.labels.team}}}}"
capabilities = ["read", "list"]

[[identities]]
name = "ci"
policies = ["deployer"]
labels = {{ team = "payments" }}
{TOKEN}
token_expires = 2027-01-01T00:00:00Z
from = ["10.0.0.0/8", "unix", "::1"]
token_max_ttl = "24h"

[[identities]]
name = "k8s/{{ns}}/{{sa}}"
spiffe_id = "spiffe://example.org/ns/{{ns}}/sa/{{sa}}"
labels = {{ namespace = "{{ns}}" }}

[[identities]]
name = "host/{{host}}"
dns_name = "{{host}}.Build.example.org"

[[issuers]]
name = "github"
issuer = "https://token.actions.githubusercontent.com"
audiences = ["lessor"]
algorithms = ["RS256"]
max_age = "24h"

[[identities]]
name = "gh/{{repository}}"
policies = ["deployer"]
jwt = {{ issuer = "github", claims = {{ repository = "acme/*", id = 7, fork = false, "/a/b" = "c" }} }}
labels = {{ ns = "{{/kubernetes.io/namespace}}" }}
"""
BROKEN = """
[[policies]]
name = "deployer"
[[policies.rules]]
path = "a/*"
capabilities = ["raed", "list"]
[[policies.rules]]
capabilities = ["read"]
[[policies.rules]]
path = "a/*"
capabilities = ["read"]
max_ttl = "0s"
max_lease = 3
[[policies]]
name = "no name"
rules = 3
[[policies]]
[[identities]]
name = "a"
policies = ["deployer", "no name", "gone"]
token_sha256 = ["x", "ABAB"]
from = ["10.0.0.1/8"]
[[identities]]
name = 7
policies = ["gone"]
spiffe_id = "spiffe://x/{a"
labels = { b = "{a}" }
[[identities]]
name = "k8s/{ns}"
spiffe_id = 4
[[identities]]
name = "a"
jwt = { issuer = "github" }
[[issuers]]
name = "github"
issuer = "http://example.org"
audiences = []
"""


def test_a_whole_file_is_loaded() -> None:
    rules = load_access_rules(FULL, "access.toml")
    limits = IssueLimits(
        timedelta(hours=1),
        20,
        (("arn:aws:iam::*:role/deploy-*",),),
        frozenset({"session_policy", "reason", "request_id"}),
        frozenset({"role_session_name"}),
    )
    read, listing = Capability.READ, Capability.LIST
    assert rules.policies["deployer"].rules == (
        Rule("aws/creds/deploy-*", frozenset({read}), limits, "policies[0](deployer).rules[0]"),
        Rule(
            "aws/creds/{{identity.labels.team}}",
            frozenset({read, listing}),
            IssueLimits(),
            "policies[0](deployer).rules[1]",
        ),
    )
    ci, k8s, host, gh = rules.identities
    assert ci.match == TokenMatch((bytes.fromhex(DIGEST),), 1798761600.0)
    assert (ci.policies, ci.labels, ci.token_max_ttl) == (
        ("deployer",),
        {"team": "payments"},
        timedelta(days=1),
    )
    assert ci.sources == (ipaddress.ip_network("10.0.0.0/8"), "unix", ipaddress.ip_network("::1/128"))
    assert k8s.match == SpiffeMatch("spiffe://example.org/ns/{ns}/sa/{sa}")
    assert host.match == DnsMatch("{host}.build.example.org")
    claims = {"repository": "acme/*", "id": "7", "fork": "false", "/a/b": "c"}
    assert gh.match == JwtMatch("github", claims)
    assert (gh.location, gh.sources) == ("identities[3](gh/{repository})", ())
    assert rules.issuers == (
        JwtIssuer(
            "github",
            "https://token.actions.githubusercontent.com",
            ("lessor",),
            algorithms=("RS256",),
            max_age=timedelta(days=1),
        ),
    )


def test_an_empty_file_lets_nobody_call() -> None:
    assert load_access_rules("", "access.toml") == AccessConfig()


def test_a_token_without_an_end_never_expires_and_an_issuer_has_30_s_of_leeway() -> None:
    rules = load_access_rules(
        identity(TOKEN) + issuer('issuer = "http://[::1]:80/x"\naudiences = ["a"]'), "access.toml"
    )
    assert rules.identities[0].match == TokenMatch((bytes.fromhex(DIGEST),), math.inf)
    assert (rules.issuers[0].leeway, rules.issuers[0].algorithms) == (
        timedelta(seconds=30),
        ("RS256", "ES256"),
    )


def test_all_problems_of_a_file_are_reported_together_and_none_causes_another() -> None:
    assert problems(BROKEN) == [
        'policies[0](deployer).rules[0].capabilities[0]: "raed" is not a valid choice',
        "policies[0](deployer).rules[2].max_ttl: 0s is below 1s",
        "policies[0](deployer).rules[2].max_lease: is not a setting",
        "policies[1](no name).rules: is a number, not a list",
        "identities[0](a).token_sha256[0]: is not 64 hex digits",
        "identities[0](a).token_sha256[1]: is not 64 hex digits",
        'identities[0](a).from[0]: "10.0.0.1/8" has bits set after its prefix',
        "identities[1].name: is a number, not text",
        'identities[1].spiffe_id: "{a" is neither a segment nor a placeholder for a whole one',
        "identities[2](k8s/{ns}).spiffe_id: is a number, not text",
        "issuers[0](github).issuer: has plain http to another machine",
        "issuers[0](github).audiences: is empty",
        "identities[3](a).name: is the name of two identities",
        'identities[0](a).policies[2]: "gone" is not a policy of this file',
        'identities[1].policies[0]: "gone" is not a policy of this file',
        "policies[0](deployer).rules[2].path: is also the path of rules[0]",
        "policies[0](deployer).rules[1]: is set without path",
        'policies[1](no name).name: "no name" is not a valid name',
        "policies[2]: is set without name",
    ]


def test_the_fix_of_a_misspelt_key_is_the_key() -> None:
    with pytest.raises(SettingsError) as caught:
        load_access_rules(policy('path = "a"\ncapabilities = ["read"]\nmax_lease = 1'), "access.toml")
    assert str(caught.value) == (
        "access.toml: policies[0](p).rules[0].max_lease: is not a setting; "
        "did you mean policies.rules.max_leases?"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (policy('path="a"\ncapabilities=["read"]') * 2, ["policies[1](p).name: is the name of two policies"]),
        (
            issuer('issuer = "https://a"\naudiences = ["x"]') * 2,
            [
                "issuers[1](j).name: is the name of two issuers",
                "issuers[1](j).issuer: is the issuer of two issuers",
            ],
        ),
        (
            identity(TOKEN, "a") + identity(TOKEN, "b"),
            ["identities[1](b).token_sha256[0]: is in the file twice"],
        ),
        (
            identity('dns_name = "{x}"', "a/{x}") + identity(TOKEN, "a/b"),
            ['identities[1](a/b).name: clashes with "a/{x}", whose beginning it shares'],
        ),
        ('[[policies]]\nname = "root"', ["policies[0](root).name: is reserved for the root token"]),
        (
            f'[[policies]]\nname = "p"\nrules = [{RULE}, 1, {OTHER_RULE}, {RULE}]',
            [
                "policies[0](p).rules[1]: is not a setting but a table of settings",
                "policies[0](p).rules[3].path: is also the path of rules[0]",
            ],
        ),
        (
            f'identities = [1, {{ name = "a", {TOKEN}, policies = [2, "x"] }}]',
            [
                "identities[0]: is not a setting but a table of settings",
                "identities[1](a).policies[0]: is a number, not text",
                'identities[1](a).policies[1]: "x" is not a policy of this file',
            ],
        ),
        (f'policies = 1\n{identity(TOKEN)}policies = ["x"]', ["policies: is a number, not a list"]),
        (f'{identity(TOKEN)}policies = ["x"]\n[policies]\nname = "x"', ["policies: is a table, not a list"]),
        (f'issuers = 1\n{JWT}', ["issuers: is a number, not a list"]),
        ('policies = [{ name = "" }, { name = 1 }]', [
            "policies[0].name: is empty",
            "policies[1].name: is a number, not text",
        ]),
        ("policies = [[]]", ["policies[0]: is not a setting but a table of settings"]),
        ('policy = "x"', ["policy: is not a setting"]),
        (f'policies = []\n{identity(TOKEN)}policies = ["x"]',
         ['identities[0](i).policies[0]: "x" is not a policy of this file']),
    ],
)  # fmt: skip
def test_a_file_is_checked_as_a_whole(text: str, found: list[str]) -> None:
    assert problems(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a" + ".a" * 500 + " = 1",
        "a = " + "{ b = " * 40 + "1" + " }" * 40,
        "a = " + "1" * 5000,
        "a = 1979-13-01",
        "a = 1e",
        'a = "\\ud800"',
        "a\0b = 1",
        "[[policies]\n",
        "policies = 1\n[[policies]]\n",
    ],
)
def test_a_text_that_is_not_toml_has_one_problem(text: str) -> None:
    assert len(problems(text)) == 1


def test_keys_and_names_are_printed_without_control_characters() -> None:
    text = '[[policies]]\nname = "a\\u001b[31m\\nb"\n"x\\u001b\\ny" = 1\n' + f'"{"k" * 999}" = 1\n'
    found = problems(text)
    assert len(found) == 3
    assert all(one.isprintable() and len(one) < 300 for one in found)


def test_no_problem_shows_a_token_or_a_password() -> None:
    text = identity('token_sha256 = ["lsr_hush", "hush"]') + issuer(
        'issuer = "https://user:hush@a"\naudiences = ["x"]\njwks_url = "https://hush@a"'
    )
    with pytest.raises(SettingsError) as caught:
        load_access_rules(text, "access.toml")
    assert len(caught.value.problems) == 4
    assert "hush" not in str(caught.value)


@given(st.lists(st.sampled_from(FULL.splitlines()), max_size=12))
def test_no_part_of_a_file_in_any_order_raises_anything_else(lines: list[str]) -> None:
    with suppress(SettingsError):
        load_access_rules("\n".join(lines), "access.toml")


VALUES = st.recursive(
    st.sampled_from(
        ["1", "-1", "nan", "inf", "true", '""', '"a"', '"{x}"', "1979-05-27T07:32:00Z", "07:32:00", "1e400"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda found: f"[{', '.join(found)}]")
        | inner.map(lambda found: f"{{ name = {found} }}")
    ),
    max_leaves=4,
)
KEYS = (
    "name policies labels token_sha256 token_expires spiffe_id dns_name ca_file jwt from token_max_ttl rules "
    "issuer audiences jwks_url jwks_file algorithms leeway max_age"
)


@given(
    table=st.sampled_from(["policies", "identities", "issuers", "policies.rules"]),
    keys=st.dictionaries(st.sampled_from(KEYS.split()), VALUES, min_size=1, max_size=4),
)
def test_a_value_of_any_type_anywhere_is_a_problem_and_no_crash(table: str, keys: dict[str, str]) -> None:
    text = ("[[policies]]\n" if "." in table else "") + f"[[{table}]]\n"
    with pytest.raises(SettingsError) as caught:
        load_access_rules(text + "\n".join(f"{key} = {value}" for key, value in keys.items()), "access.toml")
    assert all(one.problem and one.fix for one in caught.value.problems)


@pytest.fixture(name="folder")
def private_folder(tmp_path: Path) -> Path:
    """Provide a folder that only this user can change."""
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_file_is_read_with_the_files_that_it_names(folder: Path) -> None:
    Authority(folder)
    (folder / "jwks").write_text('{"keys": []}', encoding="utf-8")
    file = folder / "access.toml"
    file.write_text(
        identity(f'dns_name = "a"\nca_file = "{folder}/ca.pem"')
        + issuer(f'issuer = "https://a"\naudiences = ["x"]\njwks_file = "{folder}/jwks"'),
        encoding="utf-8",
    )
    rules = load_access_file(file)
    assert rules.identities[0].match == DnsMatch("a", f"{folder}/ca.pem")
    assert rules.issuers[0].jwks_file == f"{folder}/jwks"


def test_the_keys_of_an_issuer_have_one_place(folder: Path) -> None:
    (folder / "jwks").write_text('{"keys": []}', encoding="utf-8")
    places = f'jwks_url = "https://a/jwks"\njwks_file = "{folder}/jwks"'
    (found,) = problems(issuer(f'issuer = "https://a"\naudiences = ["x"]\n{places}'))
    assert found == "issuers[0](j).jwks_file: is set together with jwks_url"


@pytest.mark.parametrize("text", ["/", "{", "}", "{a", "{a}/", "a/{x}"])
def test_a_very_long_name_is_only_too_long(text: str) -> None:
    """It must not take time that grows faster than its length."""
    found, *_ = problems(identity(TOKEN, text * (800_000 // len(text))))
    assert ".name: has " in found
    assert found.endswith(" characters")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys": {}}', b"{", b"[" * 99999, b"\xff\xfe", b" " * (2 << 20)]
)
def test_a_jwks_file_is_a_json_object_with_keys(folder: Path, content: bytes) -> None:
    (folder / "jwks").write_bytes(content)
    (found,) = problems(issuer(f'issuer = "https://a"\naudiences = ["x"]\njwks_file = "{folder}/jwks"'))
    assert "is not a JSON Web Key Set" in found


def test_a_ca_file_holds_certificates(folder: Path) -> None:
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    (found,) = problems(identity(f'dns_name = "a"\nca_file = "{folder}/ca.pem"'))
    assert found.endswith("holds no certificates in PEM")


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (None, 0, "can't be read: No such file or directory"),
        (b"\xff", 0o600, "is not UTF-8"),
        (b"#" * ((1 << 20) + 1), 0o600, "is longer than 1 MiB"),
        (b"", 0o666, "can be written to by others (mode 0666)"),
    ],
)
def test_a_file_that_can_t_be_trusted_or_read_is_a_problem(
    folder: Path, content: bytes | None, mode: int, problem: str
) -> None:
    file = folder / "access.toml"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        load_access_file(file)
    (found,) = caught.value.problems
    assert found.where == str(file)
    assert problem in found.problem


def test_a_folder_is_no_access_file(folder: Path) -> None:
    with pytest.raises(SettingsError, match="is not a regular file"):
        load_access_file(folder)


def test_a_file_of_1_mib_is_read(folder: Path) -> None:
    file = folder / "access.toml"
    file.write_bytes(b"#" * (1 << 20))
    assert load_access_file(file) == AccessConfig()
