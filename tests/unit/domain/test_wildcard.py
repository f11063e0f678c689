"""Compares IAM's wildcards with those of the shell, which mean the same."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.policy import wildcard


@given(st.text(alphabet="ab*?.\n", max_size=8), st.text(alphabet="ab.\n", max_size=8))
def test_wildcards_match_as_the_shells_do(pattern: str, text: str) -> None:
    assert wildcard.matches(pattern, text) == fnmatchcase(text, pattern)
