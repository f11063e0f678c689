"""The calls of one command: the channel, the stubs, the printing of errors, and their exit codes."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Final, Protocol, Self, TypeVar, cast

import click
import grpc
from google.protobuf.message import Message

from lessor import errors
from lessor.channel import BadConnection, Connection, PlaintextWarning
from lessor.cli import diagnosis, formats, output, retry
from lessor.cli.connecting import connection_of
from lessor.cli.styles import EVERYWHERE
from lessor.leasing.issued import InvalidCredentials
from lessor.v1.config_pb2_grpc import ConfigServiceStub
from lessor.v1.creds_pb2_grpc import CredsServiceStub
from lessor.v1.lease_pb2_grpc import LeaseServiceStub
from lessor.v1.role_pb2_grpc import RoleServiceStub
from lessor.v1.system_pb2_grpc import SystemServiceStub
from lessor.values import JsonValue

FAILED, WRONG_USAGE, DENIED, NOT_FOUND, TRY_AGAIN, NOT_READY = 1, 2, 4, 5, 6, 7
_EXIT_CODES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: DENIED,
    grpc.StatusCode.PERMISSION_DENIED: DENIED,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: TRY_AGAIN,
    grpc.StatusCode.DEADLINE_EXCEEDED: TRY_AGAIN,
    grpc.StatusCode.ABORTED: TRY_AGAIN,
    grpc.StatusCode.FAILED_PRECONDITION: NOT_READY,
    grpc.StatusCode.ALREADY_EXISTS: NOT_READY,
}
"""The exit code of a status; all others are ``FAILED``."""
_BUSY: Final = frozenset(
    {"PACER_QUEUE_FULL", "RATE_LIMITED", "TOO_MANY_CALLS", "TOO_MANY_WATCHES", "TRY_LATER"}
)
"""Reasons for which the same call can succeed soon, whatever their status."""

PATIENCE_SECONDS: Final = 3.0
"""How long a response may take before the command prints that it is waiting."""

PAGES_A_NOTE: Final = 10

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class Failed(click.ClickException):
    """A command failed; the message is for the user."""

    def __init__(self, message: str, exit_code: int, details: Mapping[str, JsonValue] | None = None) -> None:
        """Keep the lines to print, the exit code, and the members of the error as JSON."""
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads the instance's
        self.details = details

    def show(self, file: IO[str] | None = None) -> None:
        """Print it to standard error."""
        lines = "\n".join(map(output.plain, self.message.split("\n")))
        click.echo(f"lessor: {lines}", file=file, err=True)


def describe(error: errors.Error, connection: Connection | None = None) -> str:
    """Return the lines of an error: message, violations, reason, AWS's code, time of a retry.

    For a caller that is not known, they name the credential that the ``connection`` sent.
    """
    # The message of an invalid request is its first violation.
    others = (str(violation) for violation in error.violations)
    lines = [error.message, *(text for text in others if text != error.message)]
    if connection is not None and isinstance(error, errors.Unauthenticated):
        lines.append(f"credential: {diagnosis.credential_of(connection)}")
    if error.reason_name:
        lines.append(f"reason: {error.reason_name}")
    if error.aws_code:
        lines.append(f"AWS's code: {error.aws_code}")
    if error.retry_after is not None:
        lines.append(f"try again in {error.retry_after.total_seconds():g}s")
    return "\n  ".join(map(output.plain, lines))


def members(error: errors.Error, message: str = "") -> dict[str, JsonValue]:
    """Return the members of an error as JSON; those without a value are left out."""
    all_members: dict[str, JsonValue] = {
        "message": message or error.message,
        "code": error.code.name,
        "reason": error.reason_name,
        "fix": error.fix,
        "violations": [
            {"field": one.field, "problem": one.problem, "fix": one.fix} for one in error.violations
        ],
        "retry_after": "" if error.retry_after is None else f"{error.retry_after.total_seconds():g}s",
        "aws_code": error.aws_code,
    }
    return {name: value for name, value in all_members.items() if value not in ("", [])}


class Pages(Protocol):
    """A request for one page of a list."""

    page_token: str


class Page(Protocol):
    """An answer with one page of a list."""

    next_page_token: str


class Call:
    """Calls the server for one command, and prints its answers."""

    def __init__(
        self, address: str | None, token_file: str | None, seconds: float, style: str, field: str = ""
    ) -> None:
        """Configure the connection by the options, else by the environment; ``seconds`` limits each call.

        With a ``field`` only its raw value is printed of each response.
        """
        self.style = style
        self._field = field
        self._seconds = seconds
        self._connection = connection_of(address, token_file)

    def __enter__(self) -> Self:
        """Open the channel."""
        with _errors_reported(self._connection), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PlaintextWarning)
            # Without retries a user sees immediately that the server is unreachable.
            self.channel = self._connection.open(retries=False)
        output.warn(str(one.message) for one in caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.channel.close()

    @property
    def config(self) -> ConfigServiceStub:
        """Return the stub of ConfigService."""
        return ConfigServiceStub(self.channel)

    @property
    def roles(self) -> RoleServiceStub:
        """Return the stub of RoleService."""
        return RoleServiceStub(self.channel)

    @property
    def creds(self) -> CredsServiceStub:
        """Return the stub of CredsService."""
        return CredsServiceStub(self.channel)

    @property
    def leases(self) -> LeaseServiceStub:
        """Return the stub of LeaseService."""
        return LeaseServiceStub(self.channel)

    @property
    def system(self) -> SystemServiceStub:
        """Return the stub of SystemService."""
        return SystemServiceStub(self.channel)

    def __call__(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """Call ``method``; raises ``Failed``."""
        with _errors_reported(self._connection), _noting(f"waiting for {self._connection.address}"):
            return method(request, timeout=self._seconds, metadata=self._connection.metadata())

    def again(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """Call ``method``, and retry transient failures of this idempotent request; raises ``Failed``."""

        def attempt(seconds: float) -> Answer:
            return method(request, timeout=seconds, metadata=self._connection.metadata())

        with _errors_reported(self._connection), _noting(f"waiting for {self._connection.address}"):
            return retry.repeated(attempt, self._seconds, time)

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> Iterator[Answer]:
        """Call ``method`` and yield its responses as they arrive; raises ``Failed``."""
        seconds = None if self._seconds == math.inf else self._seconds
        with _errors_reported(self._connection):
            yield from method(request, timeout=seconds, metadata=self._connection.metadata())

    def anonymous(self, method: grpc.UnaryUnaryMultiCallable[bytes, bytes], request: bytes) -> bytes:
        """Call ``method`` without a token; raises ``Failed``."""
        with _errors_reported(self._connection):
            return method(request, timeout=self._seconds)

    def all(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """Return all pages of a list as one answer."""
        asked = cast("Pages", request)
        whole = self(method, request)
        pages = 1
        while asked.page_token != (token := cast("Page", whole).next_page_token) and token:
            asked.page_token = token
            cast("Page", whole).next_page_token = ""
            whole.MergeFrom(self(method, request))
            pages += 1
            if not pages % PAGES_A_NOTE:
                click.echo(f"lessor: {pages} pages so far", err=True)
        return whole

    @property
    def is_structured(self) -> bool:
        """Return whether responses are printed for programs: as JSON, as YAML, or one field of them."""
        return bool(self._field) or self.style in formats.STRUCTURED

    @property
    def written_style(self) -> str:
        """Return the format that only this command has, if it was chosen; otherwise empty."""
        return "" if self._field or self.style in EVERYWHERE else self.style

    def require_field(self, answer: type[Message]) -> None:
        """Refuse a ``--field`` that the response will not have, before the call has an effect."""
        known = answer.DESCRIPTOR.fields_by_name
        if self._field and self._field not in known:
            raise formats.unknown_field(self._field, known)

    def show(self, answer: Message, part: str = "", leave_out: Sequence[str] = ()) -> None:
        """Print a response, for people only its ``part``, and its warnings on standard error."""
        shown = getattr(answer, part) if part else answer
        if self._field:
            formats.show_raw(formats.field_of(self._field, shown, answer))
        elif self.is_structured:
            formats.show_structured(formats.as_mapping(answer), self.style)
        else:
            output.show_fields(shown, ("warnings", *leave_out))
        if "warnings" in answer.DESCRIPTOR.fields_by_name:
            output.warn(getattr(answer, "warnings", ()))

    def show_numbers(self, answer: Message, part: str = "") -> None:
        """Print a response whose own integers have a meaning also when they are 0, and its ``part``."""
        if self._field:
            formats.show_raw(
                formats.field_of(self._field, answer, *([getattr(answer, part)] if part else []))
            )
        elif self.is_structured:
            formats.show_structured(formats.as_mapping(answer, zeros=True), self.style)
        else:
            fields = output.fields(getattr(answer, part)) if part else {}
            output.show_pairs(fields | output.numbers(answer))

    def show_list(self, answer: Message, items: str, columns: Sequence[str], whose: str = "") -> None:
        """Print a list: the whole response for programs, or a table with the ``columns`` of its ``items``.

        An empty list is reported with ``whose``, which says which items were asked for.
        """
        rows = getattr(answer, items)
        if self._field:
            for row in rows:
                formats.show_raw(formats.field_of(self._field, row))
        elif self.is_structured:
            formats.show_structured(formats.as_mapping(answer, (items,)), self.style)
        elif rows:
            output.show_rows(rows, columns)
        else:
            click.echo(f"lessor: no {items.replace('_', ' ')}{whose and f' {whose}'}", err=True)

    def show_many(self, answers: Sequence[Message], items: str, columns: Sequence[str]) -> None:
        """Print the responses of several calls as one list, which JSON names ``items``."""
        if self._field:
            for answer in answers:
                formats.show_raw(formats.field_of(self._field, answer))
        elif self.is_structured:
            formats.show_structured({items: list(map(formats.as_mapping, answers))}, self.style)
        elif answers:
            output.show_rows(answers, columns)

    def show_streamed(self, message: Message) -> None:
        """Print one message of a stream for a program, as soon as it arrives."""
        if self._field:
            formats.show_raw(formats.field_of(self._field, message))
        else:
            formats.show_streamed(formats.as_mapping(message), self.style)

    def show_values(self, content: Mapping[str, JsonValue]) -> None:
        """Print for a program what no message of the protocol holds."""
        if self._field:
            formats.show_raw(formats.value_of(self._field, content))
        else:
            formats.show_structured(content, self.style)


@contextmanager
def _errors_reported(connection: Connection) -> Iterator[None]:
    """Turn an error of the client into a message for the user."""
    try:
        yield
    except BadConnection as error:
        raise Failed(str(error), WRONG_USAGE) from None
    except grpc.RpcError as error:
        failure = cast("errors.Failure", error)
        refused = errors.of(failure, connection.address)
        raise _failure_of(refused, failure.details() or "", connection) from None


@contextmanager
def refusals_reported(connection: Connection) -> Iterator[None]:
    """Turn an error of ``lessor.leasing`` into a message for the user; raises ``Failed``."""
    try:
        yield
    except BadConnection as error:
        raise Failed(str(error), WRONG_USAGE) from None
    except InvalidCredentials as error:
        raise Failed(str(error), FAILED) from None
    except errors.Error as error:
        raise _failure_of(error, error.message, connection) from None


def _failure_of(refused: errors.Error, said: str, connection: Connection) -> Failed:
    """Return the message of a refused call; ``said`` is gRPC's text."""
    code = exit_code_of(refused)
    if isinstance(refused, errors.Unavailable) and not refused.reason_name:
        cause = diagnosis.cause_of(connection, said)
        if cause is not None:
            text = f"can't reach a server at {connection.address}: {cause}"
            return Failed(text, code, members(refused, text))
    return Failed(describe(refused, connection), code, members(refused))


def exit_code_of(error: errors.Error) -> int:
    """Return the exit code of a command whose call was refused."""
    return TRY_AGAIN if error.reason_name in _BUSY else _EXIT_CODES.get(error.code, FAILED)


@contextmanager
def _noting(what: str) -> Iterator[None]:
    """Print a note on standard error if the block takes long."""
    timer = threading.Timer(PATIENCE_SECONDS, lambda: click.echo(f"lessor: {what} …", err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
