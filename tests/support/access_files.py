"""Access files with one policy, identity or issuer, and the problems of a file."""

from __future__ import annotations

import pytest

from lessor_server.settings.access_file import load_access_rules
from lessor_server.settings.sources import SettingsError

DIGEST = "ab" * 32
TOKEN = f'token_sha256 = ["{DIGEST}"]'


def problems(text: str) -> list[str]:
    """Return the problems of a text, each as ``place: problem``."""
    with pytest.raises(SettingsError) as caught:
        load_access_rules(text, "access.toml")
    assert {one.where.partition(":")[0] for one in caught.value.problems} == {"access.toml"}
    assert all(one.fix for one in caught.value.problems)
    return [f"{one.setting}: {one.problem}" for one in caught.value.problems]


def policy(rule: str) -> str:
    """Return a file with one policy of one rule."""
    return f'[[policies]]\nname = "p"\n[[policies.rules]]\n{rule}\n'


def identity(lines: str, name: str = "i") -> str:
    """Return a file with one identity."""
    return f'[[identities]]\nname = "{name}"\n{lines}\n'


def issuer(lines: str) -> str:
    """Return a file with one issuer."""
    return f'[[issuers]]\nname = "j"\n{lines}\n'
