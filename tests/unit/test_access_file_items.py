"""Checks each key of an access file with values that it can't have."""

from __future__ import annotations

import pytest

from tests.support.access_files import DIGEST, TOKEN, identity, issuer, policy, problems


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ('capabilities = ["read"]', ": is set without path"),
        ('path = "a"', ": is set without capabilities"),
        ("", ": is set without path and capabilities"),
        ('path = ""', ".path: is empty"),
        ("path = 3", ".path: is a number, not text"),
        ('path = "a*b"', ".path: has a * that is not its last character"),
        ('path = "a+"', ".path: has a + beside other text in one segment"),
        ('path = "a/{{role}}"', '.path: "{{role}}" is not a field of a path'),
        ('path = "a\\u0000"', ".path: holds a NUL character"),
        ('capabilities = "read"', ".capabilities: is a text, not a list"),
        ("capabilities = []", ".capabilities: is empty"),
        ('capabilities = ["read", "READ"]', '.capabilities[1]: "READ" is not a valid choice'),
        ('capabilities = [["read"]]', ".capabilities[0]: is a list, not text"),
        ("max_ttl = 3600", '.max_ttl: "3600" is not a duration'),
        ('max_ttl = "1h30"', '.max_ttl: "1h30" is not a duration'),
        ('max_ttl = "87601h"', ".max_ttl: 87601h is above ten years"),
        ('max_ttl = "1500ms"', ".max_ttl: 1.5s is not a number of whole seconds"),
        ("max_ttl = nan", '.max_ttl: "nan" is not a duration'),
        ("max_ttl = 1979-05-27", '.max_ttl: "1979-05-27" is not a duration'),
        (f"max_ttl = 0x{'f' * 5000}", ".max_ttl: this number is not a duration"),
        ("max_leases = 0", ".max_leases: 0 is not from 1 to 100000"),
        ("max_leases = 100001", ".max_leases: 100001 is not from 1 to 100000"),
        ("max_leases = -1", ".max_leases: -1 is not from 1 to 100000"),
        ("max_leases = 2.0", ".max_leases: is a number, not a whole number"),
        ("max_leases = inf", ".max_leases: is a number, not a whole number"),
        ("max_leases = true", ".max_leases: is a boolean, not a whole number"),
        ('max_leases = "2"', ".max_leases: is a text, not a whole number"),
        (f"max_leases = 0x{'f' * 5000}", ".max_leases: the number is not from 1 to 100000"),
        ("role_arns = []", ".role_arns: is empty"),
        ('role_arns = ["*"]', '.role_arns[0]: "*" is not a pattern of role ARNs'),
        ('require = ["role"]', '.require[0]: "role" is not a valid choice'),
        ('require = "reason"', ".require: is a text, not a list"),
        (
            'require = ["ttl", "reason"]\nforbid = ["reason"]',
            ".forbid: has reason, which require has too",
        ),
    ],
)
def test_a_rule_is_checked(rule: str, found: str) -> None:
    keys = {line.partition(" ")[0] for line in rule.splitlines()}
    if rule and not found.startswith(": is set without"):
        rule += "" if "path" in keys else '\npath = "a"'
        rule += "" if "capabilities" in keys else '\ncapabilities = ["read"]'
    assert problems(policy(rule)) == [f"policies[0](p).rules[0]{found}"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", ": has no credential"),
        ("token_expires = 2027-01-01T00:00:00Z", ": has no credential"),
        (f'{TOKEN}\ndns_name = "a"', ".dns_name: is set together with token_sha256"),
        ('spiffe_id = "spiffe://a"\ndns_name = "a"', ".dns_name: is set together with spiffe_id"),
        (
            'dns_name = "a"\ntoken_expires = 2027-01-01T00:00:00Z',
            ".token_expires: is set without token_sha256",
        ),
        ("token_sha256 = []", ".token_sha256: is empty"),
        (f'token_sha256 = "{DIGEST}"', ".token_sha256: is a text, not a list"),
        (f'token_sha256 = ["{DIGEST}", "{DIGEST.upper()}"]', ".token_sha256[1]: is in the file twice"),
        ('token_sha256 = ["lsr_hush"]', ".token_sha256[0]: is a token, not the SHA-256 of one"),
        (f'token_sha256 = ["{DIGEST}0"]', ".token_sha256[0]: is not 64 hex digits"),
        (f"{TOKEN}\ntoken_expires = 2027-01-01T00:00:00", ".token_expires: has no offset from UTC"),
        (f"{TOKEN}\ntoken_expires = 2027-01-01", ".token_expires: is a time, not a date with a time"),
        (f"{TOKEN}\ntoken_expires = 07:32:00", ".token_expires: is a time, not a date with a time"),
        (f'{TOKEN}\ntoken_expires = "2027"', ".token_expires: is a text, not a date with a time"),
        (f"{TOKEN}\ntoken_expires = 1798761600", ".token_expires: is a number, not a date with a time"),
        (f'{TOKEN}\ntoken_max_ttl = "721h"', '.token_max_ttl: "721h" is not from 0s to 720h'),
        (
            f'{TOKEN}\ntoken_max_ttl = "1500ms"',
            ".token_max_ttl: 1.5s is not a number of whole seconds",
        ),
        ('dns_name = "a"\ntoken_max_ttl = "1h"', ".token_max_ttl: is set without token_sha256 or jwt"),
        (f"{TOKEN}\nfrom = []", ".from: is empty"),
        (f'{TOKEN}\nfrom = "unix"', ".from: is a text, not a list"),
        (f'{TOKEN}\nfrom = ["UNIX"]', '.from[0]: "UNIX" is not a network'),
        (f'{TOKEN}\nfrom = ["unix", "10/8"]', '.from[1]: "10/8" is not a network'),
        (f'{TOKEN}\nfrom = ["10.0.0.0/33"]', '.from[0]: "10.0.0.0/33" is not a network'),
        (f'{TOKEN}\nfrom = ["10.0.0.0/0.0.0.255"]', '.from[0]: "10.0.0.0/0.0.0.255" is not a network'),
        (f'{TOKEN}\nfrom = ["fe80::%1/64"]', '.from[0]: "fe80::%1/64" is not a network'),
        (f"{TOKEN}\nfrom = [10]", ".from[0]: is a number, not text"),
        (f'{TOKEN}\nfrom = ["2001:db8::1/32"]', '.from[0]: "2001:db8::1/32" has bits set after its prefix'),
        (
            f'{TOKEN}\nfrom = ["::ffff:10.0.0.0/104"]',
            '.from[0]: "::ffff:10.0.0.0/104" is a network of IPv4 in IPv6\'s form',
        ),
        (f'{TOKEN}\ntoken_max_ttl = "0s"', ".token_max_ttl: 0s is below 1s"),
        (f"{TOKEN}\ntoken_max_ttl = 1", '.token_max_ttl: "1" is not a duration'),
        (f'{TOKEN}\nlabels = "a"', ".labels: is not a table"),
        (f'{TOKEN}\nlabels = {{ "a b" = "c" }}', '.labels."a b": "a b" is not a valid name'),
        (f"{TOKEN}\nlabels = {{ a = 3 }}", ".labels.a: is a number, not text"),
        (f'{TOKEN}\nlabels = {{ a = "{{x}}" }}', '.labels.a: has "{x}", which its credential does not have'),
        (
            f'{TOKEN}\nlabels = {{ a = "{{" }}',
            ".labels.a: has a brace that is not part of a placeholder such as {x}",
        ),
        (f'{TOKEN}\npolicies = "p"', ".policies: is a text, not a list"),
        (f"{TOKEN}\npolicies = [[]]", ".policies[0]: is a list, not text"),
        (f'{TOKEN}\npolicies = ["p"]', '.policies[0]: "p" is not a policy of this file'),
        (
            'dns_name = "{a}.b"\nlabels = { a = "{b}" }',
            '.labels.a: has "{b}", which its credential does not have',
        ),
        ('dns_name = "*.b"', '.dns_name: "*" is neither a label nor a placeholder for a whole one'),
        ('jwt = "github"', ".jwt: is not a setting but a table of settings"),
        ("jwt = {}", ".jwt: is set without issuer"),
        ('jwt = { issuer = "x" }', '.jwt.issuer: "x" is not the name of an issuer of this file'),
        ("jwt = { issuer = 1979-05-27 }", ".jwt.issuer: is a time, not text"),
        ("jwt = [[]]", ".jwt: is not a setting but a table of settings"),
    ],
)
def test_an_identity_is_checked(lines: str, found: str) -> None:
    assert problems(identity(lines)) == [f"identities[0](i){found}"]


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ("[]", ": is not a table"),
        ('{ "" = "x" }', '."": is empty'),
        ('{ "a\\u001b" = "x" }', '."a�": "a�" is not the name of a claim'),
        ('{ "/a~2" = "x" }', '."/a~2": "/a~2" is not a JSON pointer'),
        ('{ sub = "" }', ".sub: is empty"),
        ('{ sub = ["x"] }', ".sub: is a list, not text"),
        ("{ sub = 1.5 }", ".sub: is a number, not text"),
        ("{ sub = 9007199254740993 }", ".sub: the number is not from"),
        ('{ sub = "a\\u001b" }', ".sub: has characters that can't be printed"),
        ("{ sub = { x = 1 } }", ".sub: is a table, not text"),
    ],
)
def test_the_claims_of_a_jwt_are_checked(claims: str, found: str) -> None:
    text = identity(f'jwt = {{ issuer = "j", claims = {claims} }}')
    (reported,) = problems(text + issuer('issuer = "https://a"\naudiences = ["x"]'))
    assert reported.startswith(f"identities[0](i).jwt.claims{found}")


@pytest.mark.parametrize(
    ("name", "lines", "found"),
    [
        ("root", TOKEN, "is reserved"),
        ("a b", TOKEN, '"a b" has characters'),
        ("a/{x}", TOKEN, 'has "{x}", which'),
        ("{x}", 'dns_name = "{x}"', "does not begin with text that ends in /"),
        ("a/{y}", 'dns_name = "{x}"', 'has "{y}", which'),
        ("a/{ns}/{sa}", 'spiffe_id = "spiffe://a/{ns}"', 'has "{sa}", which'),
        ("a/{/x~2}", 'jwt = { issuer = "j" }', '"/x~2" is not a JSON pointer'),
    ],
)
def test_the_name_of_an_identity_is_checked(name: str, lines: str, found: str) -> None:
    (reported,) = problems(identity(lines, name) + issuer('issuer = "https://a"\naudiences = ["x"]'))
    assert reported.startswith(f"identities[0]({name}).name: {found}")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", ": is set without issuer and audiences"),
        ('issuer = "https://a"', ": is set without audiences"),
        ('issuer = "https://a"\naudiences = []', ".audiences: is empty"),
        ('issuer = "https://a"\naudiences = "x"', ".audiences: is a text, not a list"),
        ('issuer = "https://a"\naudiences = [""]', ".audiences[0]: is empty"),
        *(
            (f'issuer = "{url}"\naudiences = ["x"]', f".issuer: {problem}")
            for url, problem in (
                ("http://example.org", "has plain http to another machine"),
                ("http://127.0.0.1.example.org", "has plain http to another machine"),
                ("http://localhost.example.org", "has plain http to another machine"),
                ("http://0x7f000001.example.org", "has plain http to another machine"),
                ("https://user:hush@example.org", "has a user or password"),
                ("http://localhost@example.org", "has a user or password"),
                ("http://localhost\\\\@example.org", "has a user or password"),
                ("http://localhost\\\\.example.org", "is not an https URL"),
                ("ftp://example.org", "is not an https URL"),
                ("example.org", "is not an https URL"),
                ("https://", "is not an https URL"),
                ("https:///x", "is not an https URL"),
                ("https://a b", "is not an https URL"),
                ("https://a\\n.org", "is not an https URL"),
                ("https://a.org?x=1", "has a query or a fragment"),
                ("https://a.org#x", "has a query or a fragment"),
                ("https://a.org:99999", "is not a URL"),
                ("https://a.org:0", "is not an https URL"),
                ("https://[::1", "is not a URL"),
                ("https://a/" + "x" * 2048, "has 2058 characters"),
            )
        ),
        *(
            (f'issuer = "https://a"\naudiences = ["x"]\n{line}', found)
            for line, found in (
                ('jwks_url = "http://a.org"', ".jwks_url: has plain http to another machine"),
                ('jwks_url = "https://a/#x"', ".jwks_url: has a query or a fragment"),
                ('algorithms = ["HS256"]', '.algorithms[0]: "HS256" is not a valid choice'),
                ('algorithms = ["none"]', '.algorithms[0]: "none" is not a valid choice'),
                ('algorithms = ["rs256"]', '.algorithms[0]: "rs256" is not a valid choice'),
                ("algorithms = []", ".algorithms: is empty"),
                ('leeway = "301s"', '.leeway: "301s" is not from 0s to 5m'),
                ("leeway = -1", '.leeway: "-1" is not a duration'),
                ('max_age = "0s"', ".max_age: 0s is below 1s"),
                (
                    'jwks_file = "/none/jwks"',
                    '.jwks_file: "/none/jwks" can\'t be read: No such file or directory',
                ),
                ('jwks_file = "/dev/zero"', '.jwks_file: "/dev/zero" is not a regular file'),
                ('ca_file = "/none/ca"', '.ca_file: "/none/ca" can\'t be read: No such file or directory'),
                ('ca_file = "a\\u0000"', ".ca_file: holds a NUL character"),
                ('secret = "x"', ".secret: is not a setting"),
            )
        ),
    ],
)
def test_an_issuer_is_checked(lines: str, found: str) -> None:
    assert problems(issuer(lines)) == [f"issuers[0](j){found}"]


@pytest.mark.parametrize("name", ["approle", "token"])
def test_an_issuer_has_a_name_at_which_nobody_else_logs_in(name: str) -> None:
    text = issuer('issuer = "https://a.example"\naudiences = ["lessor"]').replace('"j"', f'"{name}"')
    assert problems(text) == [f"issuers[0]({name}).name: is the name of other logins and calls of tokens"]
