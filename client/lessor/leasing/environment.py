"""The environment of a program that gets credentials: old ones are removed, so that no SDK prefers them.

Source of the order in which SDKs look: AWS SDKs and Tools Reference Guide, "Standardized credential
providers".
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lessor.leasing.issued import Issued

STALE: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    }
)
TOKENS: Final = frozenset({"LESSOR_TOKEN", "LESSOR_TOKEN_FILE"})
NO_FILE: Final = "/dev/null"
CREDENTIALS: Final = frozenset(
    {"aws_access_key_id", "credential_process", "role_arn", "web_identity_token_file", "sso_session"}
    | {"sso_start_url", "login_session"}
)
"""Settings of a profile that give it credentials."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What a program gets beside the credentials."""

    role: str
    region: str = ""
    pass_token: bool = False


def with_keys(environ: Mapping[str, str], passed: Passed, issued: Issued) -> dict[str, str]:
    """Return the environment of a program that gets the keys."""
    return {**_base(environ, passed, issued), **issued.variables()}


def with_endpoint(
    environ: Mapping[str, str], passed: Passed, issued: Issued, url: str, token: str
) -> dict[str, str]:
    """Return the environment of a program that asks the endpoint.

    SDKs ask an endpoint last. Files whose default profile has credentials are therefore hidden from the
    program; the region of that profile is passed in a variable.
    """
    found = _base(environ, passed, issued)
    found["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url
    found["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = token
    for name, hidden in hidden_files(environ).items():
        found[name] = NO_FILE
        if hidden and "AWS_REGION" not in found and "AWS_DEFAULT_REGION" not in found:
            found |= _region(hidden)
    return found


def hidden_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return which of AWS's two files have credentials in their default profile, and its region."""
    found = {}
    for name, file in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        path = Path(environ.get(name) or Path(environ.get("HOME", "/"), ".aws", file)).expanduser()
        settings = _default_profile(path)
        if not CREDENTIALS.isdisjoint(settings):
            found[name] = settings.get("region", "")
    return found


def _base(environ: Mapping[str, str], passed: Passed, issued: Issued) -> dict[str, str]:
    removed = STALE if passed.pass_token else STALE | TOKENS
    found = {name: value for name, value in environ.items() if name not in removed}
    found |= {"LESSOR_LEASE_ID": issued.lease_id, "LESSOR_ROLE": passed.role}
    return found | _region(passed.region) if passed.region else found


def _region(region: str) -> dict[str, str]:
    """Return the region's variables: boto3 and the AWS CLI read the second one, other SDKs the first."""
    return {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}


def _default_profile(path: Path) -> Mapping[str, str]:
    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return {}
    for section in ("default", "profile default"):
        if parser.has_section(section):
            return dict(parser.items(section))
    return {}
