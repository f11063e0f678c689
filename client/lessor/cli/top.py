"""``lessor top``: the state of a server on one screen, until interrupted; in a pipe one screen."""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from lessor import values
from lessor.cli.command import calling
from lessor.cli.output import plain
from lessor.cli.styles import TABLE
from lessor.v1 import config_pb2, lease_pb2, system_pb2

if TYPE_CHECKING:
    from lessor.cli.call import Call

SHOWN_STATES: Final = ("INTENT", "ACTIVE", "REVOKING", "ABANDONED")
MAX_LEASES_READ: Final = 1_000
"""One page of leases: of more, the next expiries are those of the first page."""
MAX_MOUNTS_READ: Final = 50
MAX_METRICS_BYTES: Final = 8 << 20
METRICS_SECONDS: Final = 3.0
MIN_INTERVAL: Final = timedelta(seconds=1)
NEXT_EXPIRIES, MAX_ROWS, MAX_WARNINGS = 5, 500, 3
MIN_CELL, MAX_CELL = 6, 11
"""The width of a number with its state above it."""
_SAMPLE: Final = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
_HOME: Final = "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from a server at one time.

    ``counts`` is by engine and role, then state. ``metrics`` is the sum of the samples of a name, with the
    code ``ok`` of requests to AWS apart; empty without a metrics listener. With ``is_partial`` an engine has
    more revocations than were read, so there may be more stuck ones.
    """

    time: datetime
    counts: Mapping[tuple[str, str], Mapping[str, int]]
    stuck: int = 0
    oldest_overdue: timedelta = timedelta()
    next_expiries: tuple[tuple[timedelta, str], ...] = ()
    warnings: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_partial: bool = False


@click.command("top")
@click.option("--mount", help="Only this engine.")
@click.option("--metrics", metavar="URL", help="The server's metrics, such as http://127.0.0.1:9464/metrics.")
@click.option("--interval", default="2s", show_default=True, help="Time between two screens, at least 1s.")
@calling()
def top(call: Call, mount: str | None, metrics: str | None, interval: str) -> int:
    """Show leases by role and state, stuck and overdue revocations, the next expiries, and rates.

    At a terminal the screen is refreshed until Ctrl-C; in a pipe, and with `--format json`, one is printed.
    Rates, and the rate limit of AWS, need --metrics.
    """
    try:
        pause = max(values.duration(interval), MIN_INTERVAL)
    except values.InvalidValue as wrong:
        raise click.UsageError(f"--interval: {wrong}") from None
    if metrics is not None and urlsplit(metrics).scheme not in {"http", "https"}:
        raise click.UsageError("--metrics: is not an address with http:// or https://")
    reading = read_server(call, mount, metrics)
    if call.style != TABLE:
        click.echo(json.dumps(as_document(reading), indent=2))  # which is YAML, too
        return 0
    if not sys.stdout.isatty():
        click.echo("\n".join(render(reading, None)))
        return 0
    never = threading.Event()
    follow(reading, lambda: read_server(call, mount, metrics), lambda: never.wait(pause.total_seconds()))
    return 0


def follow(first: Reading, read: Callable[[], Reading], wait: Callable[[], object]) -> None:
    """Show a reading and those that ``read`` returns after each ``wait``, until the user interrupts.

    If one can't be read, the last one stays on the screen, with the reason above it.
    """
    now, before = first, None
    problem = ""
    with suppress(KeyboardInterrupt):
        while True:
            size = get_terminal_size()
            lines = [*_wrap(problem, size.columns), *render(now, before, size.columns)][: size.lines - 1]
            click.echo(_HOME + "\n".join(line[: size.columns] for line in lines), color=True)
            wait()
            try:
                before, now, problem = now, read(), ""
            except click.ClickException as error:  # a restart of the server takes seconds
                problem = f"! no news since {now.time:%H:%M:%S}: {plain(error.message.splitlines()[0])}"


def read_server(call: Call, mount: str | None, metrics: str | None) -> Reading:
    """Read everything that one screen shows; raises ``Failed``."""
    who = call(call.system.WhoAmI, system_pb2.WhoAmIRequest())
    now = who.server_time.ToDatetime(UTC)
    names = [mount] if mount else _mount_names(call)
    counts: dict[tuple[str, str], Counter[str]] = {}
    revoking: list[lease_pb2.Lease] = []
    active: list[lease_pb2.Lease] = []
    is_partial = False
    for name in names:
        found = call(call.leases.CountLeases, lease_pb2.CountLeasesRequest(prefix=f"{name}/"))
        for one in found.counts:
            state = lease_pb2.Lease.State.Name(one.state)
            counts.setdefault((one.mount, one.role), Counter())[state] += one.count
        page = _read_leases(call, name, lease_pb2.Lease.REVOKING)
        is_partial = is_partial or bool(page.next_page_token)
        revoking += page.leases
        active += _read_leases(call, name, lease_pb2.Lease.ACTIVE).leases
    due = [now - one.expire_time.ToDatetime(UTC) for one in revoking if one.HasField("expire_time")]
    left = sorted((one.expire_time.ToDatetime(UTC) - now, one.lease_id) for one in active)
    info = call(call.system.GetInfo, system_pb2.GetInfoRequest())
    return Reading(
        time=now,
        counts=counts,
        stuck=sum(one.stuck for one in revoking),
        oldest_overdue=max([timedelta(), *due]),
        next_expiries=tuple(left[:NEXT_EXPIRIES]),
        warnings=tuple(info.warnings),
        metrics=read_metrics(metrics) if metrics else {},
        is_partial=is_partial,
    )


def _mount_names(call: Call) -> list[str]:
    answer = call.all(call.config.ListMounts, config_pb2.ListMountsRequest())
    return [one.mount for one in answer.mounts][:MAX_MOUNTS_READ]


def _read_leases(
    call: Call, mount: str, state: lease_pb2.Lease.State.ValueType
) -> lease_pb2.ListLeasesResponse:
    """Return one page: the screen has no room for more."""
    request = lease_pb2.ListLeasesRequest(prefix=f"{mount}/", state=state, page_size=MAX_LEASES_READ)
    return call(call.leases.ListLeases, request)


def read_metrics(url: str) -> dict[str, float]:
    """Return the sum of each family's samples; raises ``ClickException`` if they can't be read."""
    # A proxy would be asked for an address of this network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=METRICS_SECONDS) as answer:
            text = answer.read(MAX_METRICS_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        fix = "set --metrics to the address of metrics.listen"
        raise click.ClickException(f"the metrics at {url} can't be read: {reason}; {fix}") from None
    return sum_metrics(text.splitlines())


def sum_metrics(lines: Iterable[str]) -> dict[str, float]:
    """Return the sum of the samples by name; the requests to AWS with the code ok also under ``NAME:ok``."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        name, labels, value = sample.groups()
        found[name] += float(value)
        if labels and 'code="ok"' in labels:
            found[f"{name}:ok"] += float(value)
    return dict(found)


def as_document(reading: Reading) -> dict[str, object]:
    """Return a reading as JSON shows it."""
    return {
        "time": f"{reading.time:%Y-%m-%dT%H:%M:%SZ}",
        "roles": [
            {"mount": mount, "role": role, **{state.lower(): count for state, count in states.items()}}
            for (mount, role), states in reading.counts.items()
        ],
        "stuck": reading.stuck,
        "is_partial": reading.is_partial,
        "oldest_overdue_seconds": int(reading.oldest_overdue.total_seconds()),
        "next_expiries": [
            {"lease_id": lease_id, "seconds": int(left.total_seconds())}
            for left, lease_id in reading.next_expiries
        ],
        "warnings": list(reading.warnings),
        "metrics": dict(reading.metrics),
    }


def render(now: Reading, before: Reading | None, columns: int | None = None) -> list[str]:
    """Return the lines of a screen; rates are those since ``before``.

    With ``columns`` lines are wrapped, and names are cut so that their numbers stay visible.
    """
    totals: Counter[str] = Counter()
    for states in now.counts.values():
        totals.update(states)
    lines = [
        f"lessor top  {now.time:%Y-%m-%d %H:%M:%S} UTC",
        *_join([f"{state.lower()} {totals[state]}" for state in SHOWN_STATES], columns),
        f"stuck {now.stuck}{'+' if now.is_partial else ''}  oldest overdue {_span(now.oldest_overdue)}",
    ]
    if now.metrics:
        lines += _join(_rates(now, before), columns)
    for warning in now.warnings[:MAX_WARNINGS]:
        lines += _wrap(f"! {plain(warning)}", columns)
    if now.counts:
        lines += ["", *_table(now.counts, columns)]
    if now.next_expiries:
        lines += ["", "NEXT EXPIRIES"]
        lines += [f"{_span(left):>9}  {lease_id}" for left, lease_id in now.next_expiries]
    return lines


def _table(counts: Mapping[tuple[str, str], Mapping[str, int]], columns: int | None) -> Iterator[str]:
    """Yield the table of roles; on a narrow screen states are cut first, then names."""
    cell, width = MAX_CELL, max(len(f"{mount}/{role}") for mount, role in counts)
    if columns is not None:
        cell = max(min(MAX_CELL, (columns - width) // len(SHOWN_STATES)), MIN_CELL)
        width = max(min(width, columns - cell * len(SHOWN_STATES)), len("ROLE"))
    yield f"{'ROLE':<{width}}" + "".join(f"{state[: cell - 1]:>{cell}}" for state in SHOWN_STATES)
    by_size = sorted(counts.items(), key=lambda one: (-sum(one[1].values()), one[0]))
    for (mount, role), states in by_size[:MAX_ROWS]:
        name = f"{mount}/{role}"
        name = name if len(name) <= width else f"{name[: width - 1]}…"
        yield f"{name:<{width}}" + "".join(f"{states.get(state, 0):>{cell}}" for state in SHOWN_STATES)


def _join(parts: Iterable[str], columns: int | None) -> list[str]:
    """Return lines of parts, of which none is divided."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if columns is not None and len(longer) > columns and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def _wrap(text: str, columns: int | None) -> list[str]:
    return [text] if columns is None else wrap(text, max(columns, MIN_CELL), subsequent_indent="  ")


def _rates(now: Reading, before: Reading | None) -> list[str]:
    """Return the parts of the line of rates: limits as they are, counters as their growth per second."""
    parts = []
    for title, name in (
        ("issues", "lessor_issue_seconds_count"),
        ("revocations", "lessor_revocation_lag_seconds_count"),
        ("AWS", "lessor_aws_calls_total"),
    ):
        rate = _growth(now, before, name)
        parts.append(f"{title} {'-' if rate is None else f'{rate:.1f}'}/s")
    answered = _growth(now, before, "lessor_aws_calls_total:ok")
    total = _growth(now, before, "lessor_aws_calls_total")
    if total and answered is not None:
        parts.append(f"errors of AWS {max(1 - answered / total, 0):.0%}")
    parts.append(f"limit {now.metrics.get('lessor_aws_rate', 0):.0f}/s")
    parts.append(f"waiting {now.metrics.get('lessor_aws_queue', 0):.0f}")
    return parts


def _growth(now: Reading, before: Reading | None, name: str) -> float | None:
    """Return how much a counter grew per second; None at first, and after a restart of the server."""
    if before is None or name not in before.metrics:
        return None
    seconds = (now.time - before.time).total_seconds()
    grown = now.metrics.get(name, 0.0) - before.metrics[name]
    return grown / seconds if seconds > 0 and grown >= 0 else None


def _span(span: timedelta) -> str:
    """Return a duration in whole seconds, as people write it."""
    return values.written(timedelta(seconds=max(int(span.total_seconds()), 0)))
