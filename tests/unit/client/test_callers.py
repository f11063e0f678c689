"""Checks what the command line says of its own credential and of mistyped owners, and when to retry."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from lessor import errors
from lessor.channel import BadConnection, Connection
from lessor.cli import diagnosis
from lessor.cli.call import describe, exit_code_of
from lessor.cli.main import run
from lessor.cli.token import new
from lessor.v1 import lease_pb2

TOKEN = "a-token-for-tests"
FILE, CERT, KEY = Path("t2"), Path("svid.pem"), Path("svid.key")


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (Connection(token=TOKEN), "the token in LESSOR_TOKEN"),
        (Connection(token_file=FILE), "the token in t2"),
        (Connection(token=" ", token_file=FILE), "the token in t2"),
        (Connection(token=TOKEN, token_file=FILE), "the token in LESSOR_TOKEN, not the token in t2"),
        (
            Connection(token=TOKEN, token_file=FILE, cert_file=CERT, key_file=KEY),
            "the token in LESSOR_TOKEN, not the token in t2, not the certificate svid.pem",
        ),
        (
            Connection(token_file=FILE, cert_file=CERT, key_file=KEY),
            "the token in t2, not the certificate svid.pem",
        ),
        (Connection(cert_file=CERT, key_file=KEY), "the certificate svid.pem; a listener with client_auth"),
        (Connection(), "none; set LESSOR_TOKEN, or LESSOR_TOKEN_FILE"),
        (Connection("unix:/s", cert_file=CERT, key_file=KEY), "none; set LESSOR_TOKEN"),
    ],
)
def test_a_refused_caller_learns_which_credential_was_sent(connection: Connection, said: str) -> None:
    """The reason is the server's: the client does not know it better."""
    text = 'the JWT is for the audience "other"; get a new one'
    error = errors.Unauthenticated(text, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    message, credential, reason = describe(error, connection).splitlines()
    assert message == text
    assert credential.startswith(f"  credential: {said}")
    assert reason == "  reason: UNAUTHENTICATED"
    assert TOKEN not in credential


def test_other_errors_do_not_name_the_credential() -> None:
    error = errors.PermissionDenied("no", grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "credential" not in describe(error, Connection(token=TOKEN))


def test_the_credential_that_is_named_is_the_one_that_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "t2"
    file.write_text("of-the-file", encoding="ascii")
    for token in (TOKEN, ""):
        connection = Connection(token=token, token_file=file)
        (sent,) = connection.metadata()
        is_file = diagnosis.credential_of(connection) == f"the token in {file}"
        assert sent[1] == ("Bearer of-the-file" if is_file else f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", 6),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", 6),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES", 6),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PACER_QUEUE_FULL", 6),
        (grpc.StatusCode.UNAUTHENTICATED, "TRY_LATER", 6),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RULE_MAX_LEASES", 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "ROLE_MAX_LEASES", 1),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", 4),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOUR_LEASE", 4),
    ],
)
def test_a_call_that_can_succeed_soon_exits_with_6(
    code: grpc.StatusCode, reason: str, exit_code: int
) -> None:
    assert exit_code_of(errors.Error("no", code, reason)) == exit_code


def test_a_file_with_all_that_token_new_prints_names_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new.main([], standalone_mode=False)
    printed = capsys.readouterr().out
    file = tmp_path / "t2"
    file.write_text(printed, encoding="ascii")
    with pytest.raises(BadConnection, match="t2 has both lines of `lessor token new`; keep only") as refused:
        Connection(token_file=file).metadata()
    with pytest.raises(BadConnection, match="LESSOR_TOKEN has both lines"):
        Connection(token=printed).metadata()
    assert printed.splitlines()[0] not in str(refused.value)


def test_a_text_that_is_no_token_names_its_source(tmp_path: Path) -> None:
    file = tmp_path / "t2"
    for content, said in (
        ("one\ntwo", "t2 has more than one line"),
        ("two words", "token in .*t2 can't be sent: it has blanks"),
    ):
        file.write_text(content, encoding="ascii")
        with pytest.raises(BadConnection, match=said):
            Connection(token_file=file).metadata()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Run a server on which nobody has leases."""
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "ListLeases": unary(lambda _, __: lease_pb2.ListLeasesResponse().SerializeToString()),
        "CountLeases": unary(lambda _, __: lease_pb2.CountLeasesResponse().SerializeToString()),
        "RevokePrefix": stream(lambda _, __: iter([lease_pb2.RevokePrefixResponse().SerializeToString()])),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("lessor.v1.LeaseService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("list", "no leases of jenkinz under aws/; check the owner's name"),
        ("count", "no counts of jenkinz under aws/; check the owner's name"),
        ("revoke-prefix", "jenkinz has no live lease under aws/; check the owner's name"),
    ],
)
def test_an_owner_without_leases_may_be_mistyped(
    command: str, said: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an emergency a 0 alone would be taken for done."""
    assert run(["lease", command, "aws/", "--owner", "jenkinz", "--address", address]) == 0
    assert said in capsys.readouterr().err
    assert run(["lease", command, "aws/", "--address", address]) == 0
    assert "check the owner's name" not in capsys.readouterr().err
