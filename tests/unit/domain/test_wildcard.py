"""Checks IAM's wildcards against the shell's, which mean the same by ``*`` and ``?``."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from lessor_server.domain.policy import wildcard


@given(st.text(alphabet="ab*?.\n", max_size=8), st.text(alphabet="ab.\n", max_size=8))
def test_wildcards_match_as_the_shells_do(pattern: str, text: str) -> None:
    """A star stands for any characters, a question mark for one, all else for itself."""
    assert wildcard.matches(pattern, text) == fnmatchcase(text, pattern)
