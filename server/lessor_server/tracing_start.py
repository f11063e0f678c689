"""Starts the traces of a server, if OTEL_* variables ask for them and ``lessor[otel]`` is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from structlog.typing import FilteringBoundLogger

import lessor

if TYPE_CHECKING:
    from lessor_server.adapters.tracing.tracer import Tracer

STOP_SECONDS: Final = 5.0
"""The time for the last spans to be exported."""
ASKING: Final = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables one of which turns traces on."""


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Return whether the variables ask for traces."""
    if (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return False
    return any(environ.get(name) for name in ASKING)


def can_trace() -> bool:
    """Return whether the extra is installed."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


@asynccontextmanager
async def open_tracing(
    environ: Mapping[str, str], logger: FilteringBoundLogger
) -> AsyncIterator[Tracer | None]:
    """Yield what traces calls, or None; export the last spans when the block is left.

    Raises:
        TracesUnusable: The variables ask for an export that can't be started.
    """
    if not wants_traces(environ):
        yield None
        return
    if not can_trace():
        logger.warning(
            "traces_off", problem="lessor[otel] is not installed", fix="pip install 'lessor[otel]'"
        )
        yield None
        return
    # Imported only where it is used: the extra may be absent, and it takes 0.3 s.
    from lessor_server.adapters.tracing.provider import build_provider  # noqa: PLC0415
    from lessor_server.adapters.tracing.tracer import Tracer  # noqa: PLC0415

    provider = build_provider(environ, lessor.__version__)
    logger.info("tracing")
    try:
        yield Tracer(provider, lessor.__version__)
    finally:
        await _run_within(provider.shutdown, STOP_SECONDS)


async def _run_within(stop: Callable[[], None], seconds: float) -> None:
    """Run ``stop`` on a thread that ends with the process at the latest; wait for it at most ``seconds``."""
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, seconds)
