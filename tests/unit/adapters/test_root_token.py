"""The root token: where it comes from, and that nothing but the token itself is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessor_server.adapters.identity.root_token import RootTokenBroken, load_root_token
from lessor_server.domain.secret import TokenHash

TOKEN = "a-token-for-tests"


@pytest.mark.parametrize(
    "presented", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN}", f"{TOKEN}\n", "\udcff", "é" * 16]
)
def test_only_the_token_itself_matches(presented: str) -> None:
    """Neither a part of it nor more, nor text that is no UTF-8, is taken for the token."""
    root = TokenHash.of(TOKEN)
    assert root.matches(TOKEN)
    assert not root.matches(presented)


def test_a_given_token_is_used_and_not_written(tmp_path: Path) -> None:
    """A token from the settings leaves no trace in the data directory."""
    root = load_root_token(tmp_path, TokenHash.of(TOKEN), None)
    assert root.matches(TOKEN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_token_file_may_end_in_a_line_end(tmp_path: Path, ending: str) -> None:
    """What an editor adds is no part of the token; a file that others manage may have any mode."""
    file = tmp_path / "given"
    file.write_bytes((TOKEN + ending).encode())
    file.chmod(0o444)
    assert load_root_token(tmp_path, None, file).matches(TOKEN)
    assert not (tmp_path / "root-token").exists()


def test_without_either_one_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start writes a long random token, mode 0600, and each later one finds it."""
    root = load_root_token(tmp_path, None, None)
    file = tmp_path / "root-token"
    token = file.read_text().removesuffix("\n")
    assert root.matches(token)
    assert load_root_token(tmp_path, None, None).matches(token)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(token) == 43


def test_two_servers_make_different_tokens(tmp_path: Path) -> None:
    """The token of one installation opens no other."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    load_root_token(tmp_path / "a", None, None)
    token = (tmp_path / "a" / "root-token").read_text().strip()
    assert not load_root_token(tmp_path / "b", None, None).matches(token)


def test_our_own_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """A root token that others may have read is not taken up in silence."""
    load_root_token(tmp_path, None, None)
    (tmp_path / "root-token").chmod(0o644)
    with pytest.raises(RootTokenBroken, match="chmod 600"):
        load_root_token(tmp_path, None, None)


@pytest.mark.parametrize("content", [b"", b"\n", b"fifteen-letters\n", b"\xff" * 20])
def test_a_token_that_is_short_or_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file emptied by accident does not make the empty token good."""
    file = tmp_path / "given"
    file.write_bytes(content)
    with pytest.raises(RootTokenBroken):
        load_root_token(tmp_path, None, file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A named file is never made."""
    with pytest.raises(FileNotFoundError):
        load_root_token(tmp_path, None, tmp_path / "missing")


def test_the_token_is_shown_nowhere(tmp_path: Path) -> None:
    """Neither the hash nor an error about a token holds its text."""
    hashed = TokenHash.of(TOKEN)
    assert TOKEN not in repr(hashed) + repr([getattr(hashed, name) for name in TokenHash.__slots__])
    (tmp_path / "given").write_text("short-hush")
    with pytest.raises(RootTokenBroken) as caught:
        load_root_token(tmp_path, None, tmp_path / "given")
    assert "hush" not in str(caught.value)
