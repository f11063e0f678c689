"""Checks the sources of the root token, and that only the exact token matches."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessor_server.adapters.identity.root_token import RootTokenBroken, load_root_token
from lessor_server.domain.secret import TokenHash

TOKEN = "a-token-for-tests"


@pytest.mark.parametrize(
    "presented", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN}", f"{TOKEN}\n", "\udcff", "é" * 16]
)
def test_only_the_exact_token_matches(presented: str) -> None:
    root = TokenHash.of(TOKEN)
    assert root.matches(TOKEN)
    assert not root.matches(presented)


def test_a_given_token_is_used_and_not_written(tmp_path: Path) -> None:
    root = load_root_token(tmp_path, TokenHash.of(TOKEN), None)
    assert root.matches(TOKEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_token_file_may_end_in_a_line_end(tmp_path: Path, ending: str) -> None:
    """An editor adds it. The file may have any mode, since others manage it."""
    file = tmp_path / "given"
    file.write_bytes((TOKEN + ending).encode())
    file.chmod(0o444)
    assert load_root_token(tmp_path, None, file).matches(TOKEN)
    assert not (tmp_path / "root-token").exists()


def test_without_either_a_private_token_file_is_created_once(tmp_path: Path) -> None:
    root = load_root_token(tmp_path, None, None)
    file = tmp_path / "root-token"
    token = file.read_text().removesuffix("\n")
    assert root.matches(token)
    assert load_root_token(tmp_path, None, None).matches(token)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(token) == 43


def test_two_servers_create_different_tokens(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    load_root_token(tmp_path / "a", None, None)
    token = (tmp_path / "a" / "root-token").read_text().strip()
    assert not load_root_token(tmp_path / "b", None, None).matches(token)


def test_a_created_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_root_token(tmp_path, None, None)
    (tmp_path / "root-token").chmod(0o644)
    with pytest.raises(RootTokenBroken, match="open to others") as raised:
        load_root_token(tmp_path, None, None)
    assert "chmod 600" in raised.value.fix


@pytest.mark.parametrize("content", [b"", b"\n", b"fifteen-letters\n", b"\xff" * 20])
def test_a_token_that_is_short_or_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that was emptied by accident must not make the empty token valid."""
    file = tmp_path / "given"
    file.write_bytes(content)
    with pytest.raises(RootTokenBroken):
        load_root_token(tmp_path, None, file)


def test_a_missing_token_file_is_an_error_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_root_token(tmp_path, None, tmp_path / "missing")


def test_the_token_is_shown_nowhere(tmp_path: Path) -> None:
    hashed = TokenHash.of(TOKEN)
    assert TOKEN not in repr(hashed) + repr([getattr(hashed, name) for name in TokenHash.__slots__])
    (tmp_path / "given").write_text("short-hush")
    with pytest.raises(RootTokenBroken) as caught:
        load_root_token(tmp_path, None, tmp_path / "given")
    assert "hush" not in str(caught.value)
