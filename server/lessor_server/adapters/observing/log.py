"""Sets up the log: JSON lines for machines, coloured text at a terminal, both without secrets.

Everything is written to standard error: our log, Python's warnings, uncaught exceptions, also of threads and
destructors, and the logs of libraries. Of libraries only warnings and errors are written, at every level of
ours, because botocore's debug log has signed requests. gRPC's core does not use ``logging``; the package's
``__init__`` disables its log.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextlib import suppress
from time import time_ns  # noqa: TID251 - a line of the log has the machine's time
from types import TracebackType
from typing import Final, TextIO, cast

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from lessor_server.adapters.observing.printable import drop_empty, escape_event, escape_json
from lessor_server.adapters.observing.redact import redact
from lessor_server.domain.audit.record import format_time
from lessor_server.engine.meter import current_trace_id

MAX_LIBRARY_TEXT: Final = 100
_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_quote: Final = json.encoder.encode_basestring
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class LogLevel:
    """The lowest level that is written; it can be changed while the server runs."""

    def __init__(self, name: str) -> None:
        """Begin with debug, info, warning or error."""
        self.name = name

    def __call__(self, _: object, method: str, event: EventDict) -> EventDict:
        """Drop an event below the level; structlog calls this first."""
        if LEVELS[method] < LEVELS[self.name]:
            raise structlog.DropEvent
        return event


class LossyStream:
    """Writes to a stream and ignores errors, so that a closed terminal or pipe stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, if possible."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Flush the stream, if possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()


def start_logging(level: LogLevel, style: str, stream: TextIO = sys.stderr) -> FilteringBoundLogger:
    """Return our logger, and redirect the logs of libraries to it.

    Args:
        level: The lowest level that is written.
        style: json, console, or auto for console at a terminal and json elsewhere.
        stream: The output.
    """
    stream = cast("TextIO", LossyStream(stream))
    logging.basicConfig(handlers=[library_handler(style, stream)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    return make_logger(level, style, stream)


def make_logger(level: LogLevel, style: str, stream: TextIO) -> FilteringBoundLogger:
    """Return a logger without global changes; arguments as in ``start_logging``."""
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[level, structlog.processors.add_log_level, *_last_steps(style, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
    )
    return cast("FilteringBoundLogger", logger.bind())


def library_handler(style: str, stream: TextIO) -> logging.Handler:
    """Return a handler that writes warnings and errors of ``logging`` in our logger's format."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    handler.addFilter(CallersCannotFlood())
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *_last_steps(style, stream)],
        )
    )
    return handler


class CallersCannotFlood(logging.Filter):
    """Passes one of gRPC's records of each kind a second, with the number of those dropped.

    gRPC logs each call whose metadata it can't decode, with a traceback and the caller's text, which are
    removed.
    """

    def __init__(self) -> None:
        """Begin without dropped records."""
        super().__init__()
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if record.name.partition(".")[0] != "grpc":
            return True
        kind = f"{record.name}:{record.lineno}"
        if record.created < self._last.get(kind, 0.0) + 1.0:
            self._held[kind] = self._held.get(kind, 0) + 1
            return False
        self._last[kind] = record.created
        held = self._held.pop(kind, 0)
        text = str(record.msg) if record.exc_info else record.getMessage()
        record.msg, record.args = "%s; %d more like it", (text[:MAX_LIBRARY_TEXT], held)
        record.exc_info = record.exc_text = None
        return True


def _last_steps(style: str, stream: TextIO) -> list[Processor]:
    """Return the shared processors; nothing may be added to an event after ``redact``."""
    if style == "console" or (style == "auto" and stream.isatty()):
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        render: list[Processor] = [drop_empty, escape_event, console]
    else:
        render = [_render_json, cast("Processor", escape_json)]
    return [
        _add_timestamp,
        _add_trace_id,
        structlog.processors.format_exc_info,
        redact,
        *render,
    ]


def _add_timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the time, in a third of the time of structlog's own."""
    event["timestamp"] = format_time(time_ns() // 1000)
    return event


def _add_trace_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the id of the trace in which something happens."""
    if trace_id := current_trace_id.get():
        event["trace_id"] = trace_id
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return an event as JSON; after ``redact`` it has plain values only, of which most are texts."""
    fields = [
        f"{_quote(key)}: {_quote(value) if type(value) is str else _JSON.encode(value)}"
        for key, value in event.items()
    ]
    return f"{{{', '.join(fields)}}}"


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Log an uncaught exception, instead of Python's traceback."""
    if error is not None:
        logging.getLogger("python").error("uncaught_exception", exc_info=(kind, error, trace))
