"""Checks what ``lessor top`` shows, at a terminal and in a pipe."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lessor.cli.call import Failed
from lessor.cli.top import Reading, follow, render, sum_metrics
from tests.support.clients import Lessor
from tests.support.command_line import CommandLine
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
METRICS = """\
# HELP lessor_aws_calls_total Requests to AWS.
lessor_aws_calls_total{mount="a",action="CreateUser",code="ok"} 30.0
lessor_aws_calls_total{mount="a",action="CreateUser",code="throttling"} 10.0
lessor_aws_rate{mount="a"} 25.0
lessor_issue_seconds_count{type="iam_user",outcome="ok"} 7.0
"""


async def test_a_screen_has_leases_by_role_and_the_next_expiries(
    tmp_path: Path, server: ServerProcess, lessor: Lessor, mount: str
) -> None:
    await lessor.put_role(mount, "small")
    await lessor.put_role(mount, "large")
    first = await lessor.generate(mount, "small", ttl=100)
    for _ in range(2):
        await lessor.generate(mount, "large", ttl=1000)
    command = CommandLine(tmp_path, server.client_env)
    done = await command("top", "--mount", mount)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1].split("  ")[:2] == ["intent 0", "active 3"]
    assert lines[2] == "stuck 0  oldest overdue 0s"
    table = lines.index(next(line for line in lines if line.startswith("ROLE")))
    assert lines[table].split() == ["ROLE", "INTENT", "ACTIVE", "REVOKING", "ABANDONED"]
    assert [line.split() for line in lines[table + 1 : table + 3]] == [
        [f"{mount}/large", "0", "2", "0", "0"],
        [f"{mount}/small", "0", "1", "0", "0"],
    ]
    soonest = lines[lines.index("NEXT EXPIRIES") + 1]
    assert soonest.split()[1] == first.lease_id
    assert "\x1b" not in done.out
    document = json.loads((await command("top", "--mount", mount, "--format", "json")).out)
    assert [(one["role"], one["active"]) for one in document["roles"]] == [("large", 2), ("small", 1)]
    assert document["next_expiries"][0]["lease_id"] == first.lease_id


async def test_rates_come_from_the_metrics(tmp_path: Path, server: ServerProcess, mount: str) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as metrics:
        thread = threading.Thread(target=metrics.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{metrics.server_port}/metrics"
        done = await CommandLine(tmp_path, server.client_env)("top", "--mount", mount, "--metrics", url)
        metrics.shutdown()
        thread.join()
    assert "limit 25/s" in done.out
    away = await CommandLine(tmp_path, server.client_env)("top", "--mount", mount, "--metrics", url)
    assert away.code == 1
    assert "set --metrics to the address of metrics.listen" in away.err


async def test_a_rate_is_the_growth_of_a_counter() -> None:
    before = Reading(START, {}, metrics=sum_metrics(METRICS.splitlines()))
    assert before.metrics["lessor_aws_calls_total"] == 40
    grown = {**before.metrics, "lessor_aws_calls_total": 60.0, "lessor_aws_calls_total:ok": 45.0}
    now = Reading(START + timedelta(seconds=4), {}, metrics=grown)
    assert "AWS -/s" in render(before, None)[3]
    assert "issues 0.0/s  revocations -/s  AWS 5.0/s  errors of AWS 25%  limit 25/s" in render(now, before)[3]
    # A server that was started again counts from 0.
    assert "AWS -/s" in render(Reading(now.time, {}, metrics={"lessor_aws_calls_total": 1.0}), before)[3]


async def test_stuck_and_overdue_revocations_and_warnings_are_shown() -> None:
    counts = {("aws", "app"): {"REVOKING": 2}}
    reading = Reading(
        START, counts, 1, timedelta(minutes=7, seconds=3.5), warnings=("expiries are held\x1b[2J",)
    )
    lines = render(reading, None)
    assert lines[2] == "stuck 1  oldest overdue 7m3s"
    assert lines[3] == "! expiries are held\\x1b[2J"


async def test_a_terminal_is_refreshed_until_the_user_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    later = [Reading(START + timedelta(seconds=2 * number), {}, stuck=number) for number in (1, 2)]
    waits = iter([None, None])

    def wait() -> None:
        if next(waits, "interrupted") == "interrupted":
            raise KeyboardInterrupt

    follow(Reading(START, {}), lambda: later.pop(0), wait)
    screens = capsys.readouterr().out.split("\x1b[H\x1b[J")[1:]
    assert [screen.splitlines()[2].split("  ")[0] for screen in screens] == ["stuck 0", "stuck 1", "stuck 2"]


async def test_a_server_that_is_away_for_a_while_does_not_end_the_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = iter([Failed("can't reach a server; start it", 6), Reading(START, {}, stuck=7)])
    waits = iter([None, None])

    def wait() -> None:
        if next(waits, "interrupted") == "interrupted":
            raise KeyboardInterrupt

    def read() -> Reading:
        answer = next(answers)
        if isinstance(answer, Failed):
            raise answer
        return answer

    follow(Reading(START, {}, stuck=6), read, wait)
    first, away, back = capsys.readouterr().out.split("\x1b[H\x1b[J")[1:]
    assert "stuck 6" in away.splitlines()[3]
    assert away.startswith("! no news since 03:04:05: can't reach a server; start it\n")
    assert "no news" not in first + back
    assert "stuck 7" in back


@pytest.mark.parametrize("columns", [40, 60, 80])
async def test_a_narrow_screen_shows_each_number(columns: int) -> None:
    counts = {("an-engine-of-some-length", "a-role-with-a-rather-long-name"): {"ACTIVE": 12, "REVOKING": 345}}
    metrics = {"lessor_aws_calls_total": 10.0, "lessor_aws_calls_total:ok": 5.0, "lessor_aws_rate": 25.0}
    before = Reading(START, counts, metrics=dict.fromkeys(metrics, 0.0))
    now = Reading(START + timedelta(seconds=1), counts, warnings=("word " * 40,), metrics=metrics)
    lines = render(now, before, columns)
    assert max(map(len, lines)) <= columns
    row = next(line for line in lines if line.startswith("an-engine"))
    assert row.split()[1:] == ["0", "12", "345", "0"]
    for part in ("abandoned 0", "limit 25/s", "waiting 0"):
        assert any(part in line for line in lines)


async def test_more_revocations_than_were_read_show_as_a_minimum() -> None:
    assert render(Reading(START, {}, stuck=3, is_partial=True), None)[2].startswith("stuck 3+ ")
