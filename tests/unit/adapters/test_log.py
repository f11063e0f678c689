"""Checks the format and the levels of the log, and that no secret is in it."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessor_server.adapters.observing.log import LogLevel, library_handler, make_logger, start_logging
from lessor_server.adapters.observing.redact import redact, scrub
from lessor_server.domain.secret import Secret

# Of the shapes that AWS gives out, and none of them ever was one.
SECRET_KEY = "Ab1/" * 10
SESSION_TOKEN = "FwoGZXIvYXdzE" + "x9/+" * 20 + "=="
LEASE_ID = "aws/creds/admin/Zz9" + "A" * 21


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def logged(**values: object) -> dict[str, object]:
    """Log one event as JSON and read it back."""
    stream = io.StringIO()
    make_logger(LogLevel("info"), "json", stream).info("said", **values)
    line: dict[str, object] = json.loads(stream.getvalue())
    return line


def test_a_line_is_json_with_event_level_and_utc_time() -> None:
    line = logged(lease_id=LEASE_ID, ttl=3600)
    assert (line["event"], line["level"], line["lease_id"], line["ttl"]) == ("said", "info", LEASE_ID, 3600)
    assert str(line["timestamp"]).endswith("Z")


def test_a_terminal_gets_text_and_a_pipe_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        make_logger(LogLevel("info"), "auto", stream).info("said", role="deploy")
    assert "\x1b[" in terminal.getvalue()
    assert json.loads(pipe.getvalue())["role"] == "deploy"


def test_the_console_leaves_empty_fields_out_and_json_keeps_them() -> None:
    """Zero and False are not empty."""
    fields = {"by": "", "expires": None, "needs_restart": (), "users": 0, "force": False, "role": "app"}
    stream = io.StringIO()
    make_logger(LogLevel("info"), "console", stream).info("said", **fields)
    line = stream.getvalue()
    assert [word for word in ("by", "expires", "needs_restart") if word in line] == []
    assert [word for word in ("users=0", "force=False", "role=app") if word not in line] == []
    assert fields.keys() <= logged(**fields).keys()


def test_console_format_in_a_file_has_no_colours() -> None:
    stream = io.StringIO()
    make_logger(LogLevel("info"), "console", stream).info("said", role="deploy")
    assert "role=deploy" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_line_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    logger = make_logger(LogLevel("warning"), "json", stream)
    logger.info("quiet")
    logger.warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


@pytest.mark.parametrize(
    "key",
    [
        "secret_key",
        "SecretAccessKey",
        "security_token",
        "root_token",
        "password",
        "Authorization",
        "private_key",
    ],
)
def test_a_key_named_like_a_secret_hides_its_value(key: str) -> None:
    assert logged(**{key: "hush"})[key] == "***"
    assert "hush" not in json.dumps(logged(nested=[{"deeper": ({key: {"deepest": "hush"}},)}]))


@pytest.mark.parametrize("key", ["lease_id", "access_key_id", "role", "root_token_file", "lease_ttl"])
def test_an_ordinary_key_shows_its_value(key: str) -> None:
    assert logged(**{key: "plain"})[key] == "plain"


def test_a_secret_hides_under_any_key() -> None:
    hush = Secret("hush")
    assert logged(value=hush)["value"] == "***"
    assert "hush" not in json.dumps(logged(values=[hush], table={"x": hush}, pair=(1, {hush})))


@pytest.mark.parametrize("secret", [SECRET_KEY, SESSION_TOKEN])
@pytest.mark.parametrize("frame", ["{}", "key={} (new)", "({})", "x {}", "'{}',", "a:{}"])
def test_text_with_the_shape_of_a_secret_is_hidden(secret: str, frame: str) -> None:
    text = frame.format(secret)
    assert secret not in str(logged(note=text))
    assert secret not in str(redact(None, "info", {"event": text}))


@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer hush",
        "https://sts.example/?Action=x&password=hush&y=1",
        "{'SecretAccessKey': 'hush'}",
        '{"session_token": "hush"}',
        "Root(secret_key='hush')",
        "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_behind_its_name_in_a_text_is_hidden(text: str) -> None:
    """As in headers, queries, documents and key pairs."""
    assert "hush" not in scrub(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot connect to 'http://ann:hush@proxy:3128'", "cannot connect to 'http://***@proxy:3128'"),
        ("http://socks5://ann:hush/@!@proxy", "http://***@proxy"),
        ("postgresql://:hush@db/lessor", "postgresql://***@db/lessor"),
        ("https://aws.test:443/a http://b:1", "https://aws.test:443/a http://b:1"),
        ("ann@aws.test: https://aws.test/@a", "ann@aws.test: https://aws.test/@a"),
    ],
)
def test_a_password_in_a_url_is_hidden(text: str, shown: str) -> None:
    assert scrub(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        LEASE_ID,
        "my-aws/creds/a/" + "Ab1" * 8,
        "AKIAIOSFODNN7EXAMPLE",
        "arn:aws:iam::123456789012:user/lessor/aws/deploy",
        "0" * 40,
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "a token of no more than 16 characters",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """A lease id may have 40 characters, as a secret key has."""
    assert scrub(text) == text


def test_an_exception_is_written_without_its_secrets() -> None:
    stream = io.StringIO()
    logger = make_logger(LogLevel("info"), "json", stream)
    try:
        raise ValueError(f"AWS said {SECRET_KEY}")
    except ValueError as error:
        logger.exception("failed", cause=error)
    line = json.loads(stream.getvalue())
    assert "Traceback" in line["exception"]
    assert line["cause"] == "ValueError: AWS said ***"
    assert SECRET_KEY not in stream.getvalue()


def test_any_value_can_be_logged() -> None:
    endless: list[object] = []
    endless.append(endless)
    line = logged(raw=b"hush", thing=object, endless=endless, nothing=None, table={1: 2})
    assert line["raw"] == "<4 bytes>"
    assert "object" in str(line["thing"])
    assert "…" in json.dumps(line["endless"], ensure_ascii=False)
    assert line["nothing"] is None
    assert line["table"] == {"1": 2}


def test_libraries_log_from_warnings_up_and_without_secrets() -> None:
    """The debug log of botocore has signed requests."""
    stream = io.StringIO()
    record = logging.LogRecord("botocore.x", logging.WARNING, "x", 1, "signed %s", (SECRET_KEY,), None)
    handler = library_handler("json", stream)
    handler.handle(record)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("signed ***", "botocore.x", "warning")
    assert handler.level == logging.WARNING


@pytest.fixture(name="stdlib")
def kept_stdlib() -> Iterator[logging.Logger]:
    """Give the root logger, and put it back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    root.handlers = []
    yield root
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_server_and_its_libraries_log_to_one_stream(stdlib: logging.Logger) -> None:
    stream = io.StringIO()
    logger = start_logging(LogLevel("debug"), "json", stream)
    logger.debug("ours")
    library = stdlib.getChild("botocore.auth")
    library.info("theirs, quiet")
    library.error("theirs, loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours", "theirs, loud"]


class Broken(io.StringIO):
    """A stream whose other end is gone."""

    def write(self, text: str) -> int:
        """Fail as a closed terminal does."""
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        """Fail as a closed pipe does."""
        raise BrokenPipeError


def test_a_line_that_cannot_be_written_is_dropped(stdlib: logging.Logger) -> None:
    """The terminal or pipe of a running server may be closed."""
    logger = start_logging(LogLevel("info"), "json", Broken())
    logger.info("ours")
    stdlib.getChild("botocore").error("theirs")


def test_the_level_can_be_changed_while_the_server_runs() -> None:
    stream, level = io.StringIO(), LogLevel("error")
    logger = make_logger(level, "json", stream)
    logger.info("too quiet")
    level.name = "debug"
    logger.debug("heard")
    level.name = "warning"
    logger.info("too quiet again")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["heard"]


def test_uncaught_exceptions_and_warnings_are_logged(stdlib: logging.Logger) -> None:
    stream = io.StringIO()
    start_logging(LogLevel("info"), "json", stream)

    class Broken:
        def __del__(self) -> None:
            raise ValueError("in a destructor")

    def fail() -> None:
        raise ValueError("in a thread")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("deprecated", RuntimeWarning, stacklevel=1)
    broken = Broken()
    del broken
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("at the top"), None)
    for name in ("grpc._cython.cygrpc", "asyncio", "aiosqlite", "botocore.x", "moto.x"):
        stdlib.getChild(name).error("said by %s", name)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 9
    answer = "".join(str(line.get("exception", line["event"])) for line in lines)
    for text in ("deprecated", "in a destructor", "in a thread", "at the top", "said by grpc._cython.cygrpc"):
        assert text in answer


# --- what is not printable ------------------------------------------------------------------------------

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "line": "a\nlevel=error event=forged",
    "carriage return": "abc\rxyz",
    "delete": "\x7f\x00\x08",
    "c1": "\x9b31m\x85",
    "bidi": "\u202e\u2066\u200f\u061c",
    "line separator": "\u2028\u2029",
    "invisible": "\u200b\ufeff\u00ad",
    "surrogate": "\ud83d alone \udcff",
    "tag": "\U000e0041",
    "private": "\ue000\U0010ffff",
}


def is_clean(line: str) -> bool:
    """Tell whether a terminal shows a line as it is."""
    return line.removesuffix("\n").isprintable()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_json_escapes_what_is_not_printable_without_loss(hostile: str) -> None:
    stream = io.StringIO()
    logger = make_logger(LogLevel("info"), "json", stream)
    logger.info(hostile, **{"plain": hostile, hostile: "x", "nested": [{hostile: ({"deep": hostile},)}]})
    assert is_clean(stream.getvalue())
    line = json.loads(stream.getvalue())
    nested = line["nested"][0][hostile][0]["deep"]
    assert (line["event"], line["plain"], line[hostile], nested) == (hostile, hostile, "x", hostile)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_the_console_escapes_what_is_not_printable(hostile: str) -> None:
    stream = io.StringIO()
    logger = make_logger(LogLevel("info"), "console", stream)
    logger.info(hostile, **{"plain": hostile, hostile: "x", "nested": [{hostile: ({"deep": hostile},)}]})
    assert is_clean(stream.getvalue())


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_breaks_a_line(text: str) -> None:
    for style in ("json", "console"):
        stream = io.StringIO()
        make_logger(LogLevel("info"), style, stream).info("said", **{"note": text, f"k{text}": "v"})
        assert is_clean(stream.getvalue())
        if style == "json":
            assert json.loads(stream.getvalue())["note"] == json.loads(json.dumps(scrub(text)))


def test_escape_sequences_of_callers_do_not_reach_a_terminal() -> None:
    stream = Terminal()
    make_logger(LogLevel("info"), "auto", stream).info("said", role="\x1b]0;title\x07")
    assert "\x1b]" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    assert "\\x1b]0;title\\x07" in stream.getvalue()


def test_the_text_of_an_exception_cannot_forge_a_console_line() -> None:
    stream = io.StringIO()
    logger = make_logger(LogLevel("info"), "console", stream)
    try:
        raise ValueError("a\n2026-01-01 [info] forged\x1b[2J")
    except ValueError:
        logger.exception("failed")
    first, *others = stream.getvalue().splitlines()
    assert "failed" in first
    assert [line for line in others if line.startswith("2026")] == []
    assert all(line.isprintable() for line in others)


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_library_s_text_is_escaped_too(style: str) -> None:
    stream = io.StringIO()
    record = logging.LogRecord("x\x1b", logging.WARNING, "x", 1, "said %s", (HOSTILE["escape"],), None)
    library_handler(style, stream).handle(record)
    assert is_clean(stream.getvalue())


def test_calls_that_grpc_cannot_decode_log_one_line_a_second() -> None:
    stream = io.StringIO()
    handler = library_handler("json", stream)
    logger = logging.getLogger("grpc._cython.cygrpc")
    for _ in range(1000):
        try:
            b"\xff".decode("utf8")
        except UnicodeDecodeError as error:
            info = (UnicodeDecodeError, error, error.__traceback__)
        record = logger.makeRecord(
            logger.name, logging.ERROR, "x", 1, "Invalid encoding on %s", ("text",), info
        )
        if handler.filter(record):
            handler.emit(record)
    assert len(stream.getvalue().splitlines()) <= 2
    assert "Traceback" not in stream.getvalue()
    assert "text" not in json.loads(stream.getvalue().splitlines()[0])["event"]


@pytest.mark.parametrize("prefix", ["lsr_", "lst_"])
def test_a_token_of_ours_is_hidden_wherever_it_is(prefix: str) -> None:
    token = prefix + "Ab1" * 16 + "x"
    assert scrub(f"GET /{token}?a") == "GET /***?a"
    assert token not in str(logged(path=[{"deep": f"x{token}"}]))
