"""Checks the page of metrics as prometheus-client's own parsers read it, and the bounds of its labels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.support.virtual_loop import virtual

from lessor_server.adapters.metrics import families
from lessor_server.adapters.metrics.families import FAMILIES, MAX_MOUNTS, MAX_ROLES, OTHER, Family
from lessor_server.adapters.metrics.page import OPEN_METRICS, Gauges, Pages, count_leases, write_page
from lessor_server.adapters.metrics.recorder import MAX_CODES, MAX_SERIES, Recorder
from lessor_server.adapters.metrics.snapshot import Snapshot, Sources
from lessor_server.domain.audit.record import SinkStatus
from lessor_server.domain.aws.iam_calls import UserRoom
from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.lease import State
from lessor_server.engine.meter import AccountGauges, EngineGauges
from lessor_server.engine.store_types import LeaseCount, LeaseGauges

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NO_METADATA: dict[str, str] = {}
NOTHING = Gauges()


def recorder() -> Recorder:
    return Recorder(NOW.timestamp)


def read(made: Recorder, gauges: Gauges = NOTHING, accept: str = "") -> dict[str, Metric]:
    """Return the families of the page by name."""
    page, _ = write_page(made, gauges, accept)
    parse = parse_openmetrics if accept else parse_text
    return {one.name: one for one in parse(page.decode())}


def values(metric: Metric, **labels: str) -> dict[str, float]:
    """Return the values of the samples with these labels, but not of buckets, by the samples' names."""
    return {
        one.name: one.value
        for one in metric.samples
        if not one.name.endswith("_bucket") and labels.items() <= one.labels.items()
    }


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_every_family_is_always_there(accept: str) -> None:
    """Also without a sample, with its help, its type and the labels of its table."""
    found = read(recorder(), accept=accept)
    for family in FAMILIES:
        metric = found[family.name]
        assert (metric.type, metric.documentation) == (family.kind, family.help)
    assert {name for name in found if not name.startswith("process_")} == {one.name for one in FAMILIES}


@virtual
async def test_a_call_is_counted_by_its_code_and_timed() -> None:
    made = recorder()
    end = made.begin_call("lessor.v1.CredsService", "GenerateCredentials", lambda: NO_METADATA)
    await asyncio.sleep(0.3)
    end("OK")
    made.begin_call("", "the method", lambda: NO_METADATA)("UNIMPLEMENTED")
    found = read(made)
    labels = {"grpc_service": "lessor.v1.CredsService", "grpc_method": "GenerateCredentials"}
    assert values(found["grpc_server_handled"], grpc_code="OK", **labels) == {"grpc_server_handled_total": 1}
    handling = values(found["grpc_server_handling_seconds"], **labels)
    assert handling["grpc_server_handling_seconds_count"] == 1
    assert handling["grpc_server_handling_seconds_sum"] == pytest.approx(0.3, abs=0.01)
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_code": "UNIMPLEMENTED"}
    assert values(found["grpc_server_handled"], **unknown) == {"grpc_server_handled_total": 1}


@virtual
async def test_buckets_add_up() -> None:
    made = recorder()
    for seconds in (0.0, 0.1, 0.100001, 7200.0, 1e9):
        made.record_revocation_lag(seconds)
    metric = read(made)["lessor_revocation_lag_seconds"]
    buckets = {one.labels["le"]: one.value for one in metric.samples if one.name.endswith("_bucket")}
    assert (buckets["0.1"], buckets["0.25"], buckets["3600.0"], buckets["21600.0"]) == (2, 3, 3, 4)
    assert buckets["+Inf"] == values(metric)["lessor_revocation_lag_seconds_count"] == 5


@virtual
async def test_requests_to_aws_are_counted_by_lower_case_action_and_code() -> None:
    made = recorder()
    for code in ("ok", "ok", "AccessDenied", "Throttling", ""):
        made.begin_aws_call("aws", "CreateUser")(code, "request", "")
    metric = read(made)["lessor_aws_calls"]
    found = {one.labels["code"]: one.value for one in metric.samples}
    assert found == {"ok": 2, "accessdenied": 1, "throttling": 1, "no_answer": 1}
    assert {one.labels["action"] for one in metric.samples} == {"createuser"}


@virtual
async def test_a_stranger_s_codes_and_mounts_do_not_grow_the_page() -> None:
    made = recorder()
    for number in range(3 * MAX_CODES):
        made.begin_aws_call(f"mount{number}", "CreateUser")(f"Code{number}", "", "")
    made.begin_aws_call("mount0", "CreateUser")("x" * 100_000, "", "")
    made.begin_aws_call("mount0", "CreateUser")("line\nend", "", "")
    samples = read(made)["lessor_aws_calls"].samples
    assert len({one.labels["mount"] for one in samples}) == MAX_MOUNTS + 1
    assert len({one.labels["code"] for one in samples}) <= MAX_CODES + 1
    assert sum(one.value for one in samples) == 3 * MAX_CODES + 2
    assert max(len(one.labels["code"]) for one in samples) <= 64


@virtual
async def test_series_of_requests_to_aws_are_bounded_in_all() -> None:
    made = recorder()
    for number in range(2 * MAX_SERIES):
        made.begin_aws_call(f"m{number % 90}", f"A{number // 90 % 40}")(f"C{number % 97}", "", "")
    assert len(made.aws_calls.by_labels) <= MAX_SERIES + 40
    assert sum(made.aws_calls.by_labels.values()) == 2 * MAX_SERIES


@virtual
async def test_a_removed_mount_gives_its_label_back() -> None:
    made = recorder()
    for number in range(MAX_MOUNTS + 5):
        made.begin_aws_call(f"m{number}", "CreateUser")("ok", "", "")
    made.keep_mounts(["m0", "new"])
    made.begin_aws_call("new", "CreateUser")("ok", "", "")
    assert {labels[0] for labels in made.aws_calls.by_labels} == {"m0", "new", OTHER}


@virtual
async def test_the_clock_s_skew_is_that_to_aws() -> None:
    made = recorder()
    made.begin_aws_call("aws", "CreateUser")("ok", "", format_datetime(NOW.replace(minute=1), usegmt=True))
    assert made.clock_skew == pytest.approx(-60, abs=1)
    await asyncio.sleep(11)
    made.begin_aws_call("aws", "CreateUser")("ok", "", format_datetime(NOW, usegmt=True))
    assert made.clock_skew == 0
    await asyncio.sleep(11)
    for strange in ("yesterday", "Mon, 01 Jan 9999 00:00:00 GMT", "\x00"):
        made.begin_aws_call("aws", "CreateUser")("ok", "", strange)
        await asyncio.sleep(11)
    assert made.clock_skew == 0


def counts_of(roles: int, mount: str = "aws") -> Iterable[LeaseCount]:
    """Return a role with one lease, one with two, and so on."""
    return (LeaseCount(mount, f"role{n}", State.ACTIVE, n) for n in range(1, roles + 1))


def test_of_ten_thousand_roles_the_largest_have_labels() -> None:
    found = count_leases(counts_of(10_000), ["aws"])
    roles = found[families.ROLE_LEASES]
    assert len(roles) == MAX_ROLES + 1
    assert roles["aws", "role10000", "active"] == 10_000
    assert ("aws", "role9500", "active") not in roles
    assert roles["aws", OTHER, "active"] == sum(range(1, 9_501))
    assert found[families.LEASES]["aws", "active"] == sum(range(1, 10_001))


def test_of_a_thousand_mounts_the_largest_have_labels() -> None:
    counts = [LeaseCount(f"m{n}", "r", State.REVOKING, n + 1) for n in range(1_000)]
    found = count_leases(counts, [f"m{n}" for n in range(1_000)])
    assert len({mount for mount, _ in found[families.LEASES]}) == MAX_MOUNTS + 1
    assert found[families.LEASES][OTHER, "revoking"] == sum(range(1, 901))
    assert sum(found[families.ROLE_LEASES].values()) == sum(range(1, 1_001))


def test_a_mount_without_leases_has_zeros_and_what_is_gone_is_not_counted() -> None:
    found = count_leases([LeaseCount("aws", "app", State.GONE, 7)], ["aws"])
    states = ("intent", "active", "revoking", "abandoned")
    assert found[families.LEASES] == {("aws", state): 0 for state in states}
    assert found[families.ROLE_LEASES] == {}


async def count(found: LeaseGauges) -> Mapping[Family, dict[tuple[str, ...], float]]:
    """Count without a thread, which virtual time does not have."""
    return count_leases(found.counts, found.mounts)


class Store:
    """A store with numbers of a test, which may be away."""

    def __init__(self) -> None:
        self.gauges = LeaseGauges((LeaseCount("aws", "app", State.ACTIVE, 3),), ("aws",), 2, 0)
        self.is_away = False

    def now(self) -> int:
        return int(NOW.timestamp() * 1e6 + asyncio.get_running_loop().time() * 1e6)

    async def measure_leases(self) -> LeaseGauges:
        if self.is_away:
            raise StoreUnavailable("away")
        return self.gauges


ACCOUNT = AccountGauges(UserRoom(9, 5000), 1)
ENGINE = EngineGauges({"aws": 12.5}, {"issue": 4}, "CLOCK_UNTRUSTED", {"aws": ACCOUNT})


async def warned() -> dict[str, int]:
    return {"files": 2, "tampered_rows": 0}


@virtual
async def test_a_snapshot_shows_the_store_the_engine_and_the_audit() -> None:
    store, made = Store(), recorder()
    snapshot = Snapshot(made, "1.2.3", count)
    snapshot.watch(
        Sources(store, lambda: ENGINE, lambda: [SinkStatus("file", False, 1, "")], warned, lambda: 5e9)
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(snapshot.run())
        await asyncio.sleep(1)
        found = read(made, snapshot.read())
        task.cancel()
    assert values(found["lessor_leases"], mount="aws", state="active") == {"lessor_leases": 3}
    assert values(found["lessor_role_leases"], role="app") == {"lessor_role_leases": 3}
    assert values(found["lessor_leases_stuck"]) == {"lessor_leases_stuck": 2}
    assert values(found["lessor_aws_rate"], mount="aws") == {"lessor_aws_rate": 12.5}
    assert values(found["lessor_aws_queue"], priority="issue") == {"lessor_aws_queue": 4}
    held = {one.labels["reason"]: one.value for one in found["lessor_expiry_held"].samples}
    assert {reason for reason, value in held.items() if value} == {"clock_untrusted"}
    assert values(found["lessor_account_users"], mount="aws") == {"lessor_account_users": 9}
    assert values(found["lessor_account_users_quota"], mount="aws") == {"lessor_account_users_quota": 5000}
    assert values(found["lessor_root_key_age_seconds"])["lessor_root_key_age_seconds"] > 1e9
    assert values(found["lessor_audit_sink_up"], sink="file") == {"lessor_audit_sink_up": 0}
    assert values(found["lessor_ready"]) == {"lessor_ready": 0}
    assert values(found["lessor_warnings"], about="files") == {"lessor_warnings": 2}
    expiry = "lessor_certificate_expiry_timestamp_seconds"
    assert values(found[expiry]) == {expiry: 5e9}
    assert values(found["lessor_build_info"], version="1.2.3") == {"lessor_build_info": 1}


@virtual
async def test_numbers_age_while_the_store_is_away_and_the_oldest_due_lease_waits_on() -> None:
    store, made = Store(), recorder()
    snapshot = Snapshot(made, "1", count)
    snapshot.watch(
        Sources(store, lambda: replace(ENGINE, hold="an operator's own words"), list, warned, lambda: None)
    )
    store.gauges = replace(store.gauges, oldest_due_us=store.now() - 5_000_000)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(snapshot.run())
        await asyncio.sleep(1)
        store.is_away = True
        await asyncio.sleep(60)
        found = read(made, snapshot.read())
        store.is_away = False
        await asyncio.sleep(10)
        after = read(made, snapshot.read())
        task.cancel()
    (overdue,) = values(found["lessor_oldest_overdue_seconds"]).values()
    assert overdue == pytest.approx(66, abs=1)
    assert values(found["lessor_snapshot_age_seconds"])["lessor_snapshot_age_seconds"] > 55
    assert values(after["lessor_snapshot_age_seconds"])["lessor_snapshot_age_seconds"] < 11
    assert values(found["lessor_expiry_held"], reason="asked") == {"lessor_expiry_held": 1}


@virtual
async def test_a_delay_of_the_loop_is_shown_for_half_a_minute_at_least() -> None:
    snapshot = Snapshot(recorder(), "1")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(snapshot.loop_lag.run())
        await asyncio.sleep(0.1)
        snapshot.loop_lag._current = 0.75
        await asyncio.sleep(29)
        assert snapshot.loop_lag.seconds == 0.75
        await asyncio.sleep(62)
        assert snapshot.loop_lag.seconds < 0.75
        task.cancel()


async def test_a_flood_of_scrapes_writes_one_page_a_second() -> None:
    written = 0

    def read_gauges() -> Gauges:
        nonlocal written
        written += 1
        return Gauges()

    pages = Pages(recorder(), read_gauges)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pages.get("")) for _ in range(50)]
    assert len({task.result() for task in tasks}) == 1
    assert written == 1
    text, kind = await pages.get(f"{OPEN_METRICS};version=1.0.0,text/plain;q=0.5")
    assert text.endswith(b"# EOF\n")
    assert kind.startswith(OPEN_METRICS)
