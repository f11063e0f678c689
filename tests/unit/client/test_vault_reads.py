"""Checks the reads of Vault's API: how lists are asked for, and what an answer of another kind does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click
import pytest

from lessor.cli import vault_reads
from lessor.cli.vault_reads import VaultFailed, VaultSource

TOKEN = "hvs.token"
Answers = dict[tuple[str, str], tuple[int, str]]


@contextmanager
def serving(answers: Answers) -> Iterator[tuple[str, list[str]]]:
    """Serve a status and a body for each method and path; yield the URL, and the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Answers, and notes what it was asked."""

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers['X-Vault-Token']}")
            status, body = answers.get((self.command, self.path), (404, "{}"))
            self.send_response(status)
            if status == 307:
                self.send_header("Location", body)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_LIST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


KEYS = json.dumps({"data": {"keys": ["a", "folder/", "b"]}})


def test_a_list_is_asked_for_as_vault_documents_it() -> None:
    with serving({("LIST", "/v1/aws/roles"): (200, KEYS)}) as (url, asked):
        assert VaultSource(url, TOKEN).list("aws/roles") == ["a", "b"]
    assert asked == [f"LIST /v1/aws/roles {TOKEN}"]


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_behind_a_proxy_that_does_not_know_the_method_a_query_is_used(status: int) -> None:
    answers = {("LIST", "/v1/aws/roles"): (status, "{}"), ("GET", "/v1/aws/roles?list=true"): (200, KEYS)}
    with serving(answers) as (url, _):
        assert VaultSource(url, TOKEN).list("aws/roles") == ["a", "b"]


def test_nothing_is_an_empty_list_and_no_engine() -> None:
    with serving({("GET", "/v1/sys/mounts/aws/tune"): (400, "{}")}) as (url, _):
        source = VaultSource(url, TOKEN)
        assert source.list("aws/roles") == []
        assert source.read("aws/config/lease") is None
        assert source.read_tune("aws") is None


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, "not json", 1),
        (200, "[]", 1),
        (200, "[" * 100_000, 1),
        (200, "x" * (vault_reads.MAX_BYTES + 1), 1),
        (403, "{}", 4),
        (500, "{}", 1),
        (503, "{}", 6),
        (307, "http://127.0.0.1:1/v1/x", 1),
    ],
)
def test_another_answer_is_an_error_with_its_exit_code(status: int, body: str, code: int) -> None:
    """A redirect is not followed: the token would go to another host."""
    with serving({("GET", "/v1/x"): (status, body)}) as (url, asked), pytest.raises(VaultFailed) as failed:
        VaultSource(url, TOKEN).read("x")
    assert failed.value.exit_code == code
    assert TOKEN not in failed.value.message
    assert len(asked) == 1


def test_a_source_shows_no_token_and_knows_who_can_read_it() -> None:
    assert TOKEN not in repr(VaultSource("https://vault.example", TOKEN))
    assert VaultSource("http://vault.example:8200", TOKEN).is_plaintext
    assert not VaultSource("http://127.0.0.1:8200", TOKEN).is_plaintext
    assert not VaultSource("https://vault.example", TOKEN).is_plaintext
    for addr in ("vault.example:8200", "file:///etc/passwd", "https://", ""):
        with pytest.raises(click.UsageError):
            VaultSource(addr, TOKEN)


def test_a_file_of_authorities_that_is_none_is_refused() -> None:
    with pytest.raises(click.UsageError, match="cacert"):
        VaultSource("https://127.0.0.1:1", TOKEN, "/dev/null").read("x")
