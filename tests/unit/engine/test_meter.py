"""Checks what the engine measures: issues, their phases, and how long revocations take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from lessor_server.domain.errors.base import LessorError, NotFound
from lessor_server.domain.events import AccountPaused, Revoked
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.meter import PHASES
from tests.support.engine_world import world
from tests.support.iam_faults import Fault, Kind
from tests.support.virtual_loop import virtual


@dataclass
class Notes:
    """Keeps measurements."""

    issues: list[tuple[str, str, float]] = field(default_factory=list)
    phases: list[tuple[str, float]] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)

    def record_issue(self, credential_type: str, outcome: str, seconds: float) -> None:
        self.issues.append((credential_type, outcome, seconds))

    def record_phase(self, phase: str, seconds: float) -> None:
        self.phases.append((phase, seconds))

    def record_revocation_lag(self, seconds: float) -> None:
        self.lags.append(seconds)

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [one[:2] for one in self.issues]


@virtual
async def test_an_issue_is_measured_as_a_whole_and_by_phases() -> None:
    notes = Notes()
    async with world(latency=0.5, meter=notes) as w:
        await w.issue()
        notes.phases.clear()
        notes.issues.clear()
        await w.issue()
        assert notes.outcomes == [("iam_user", "ok")]
        assert [phase for phase, _ in notes.phases] == list(PHASES)
        seconds = dict(notes.phases)
        assert seconds["aws_1"] == pytest.approx(0.5, abs=0.01)
        assert seconds["aws_2"] == pytest.approx(0.5, abs=0.01)
        assert notes.issues[0][2] == pytest.approx(1.0, abs=0.05)


@virtual
async def test_a_refused_issue_differs_from_a_failed_one() -> None:
    notes = Notes()
    async with world(meter=notes) as w:
        with pytest.raises(NotFound):
            await w.issue(role="absent")
        w.aws.faults.add(Fault(Kind.REFUSE, "CreateUser"))
        with pytest.raises(LessorError):
            await w.issue()
        w.aws.faults.clear()
        w.aws.away = True
        with pytest.raises(LessorError):
            await w.issue()
        assert notes.outcomes == [("", "refused"), ("iam_user", "refused"), ("iam_user", "failed")]


@virtual
async def test_the_lag_of_an_expiry_counts_from_the_expiry_to_the_deletion_of_the_key() -> None:
    notes = Notes()
    async with world(latency=0.5, meter=notes) as w:
        await w.issue(ttl=60)
        await w.events.until(Revoked)
        (lag,) = notes.lags
        assert 0.5 <= lag < 2.0


@virtual
async def test_the_lag_of_a_requested_revocation_counts_from_the_request() -> None:
    notes = Notes()
    async with world(latency=0.5, meter=notes) as w:
        made = await w.issue()
        await asyncio.sleep(100)
        await w.revoke(made.lease.id)
        assert notes.lags == [pytest.approx(0.5, abs=0.05)]


@virtual
async def test_the_lag_of_a_bulk_revocation_counts_from_when_its_leases_became_due() -> None:
    notes = Notes()
    async with world(latency=0.5, meter=notes) as w:
        for _ in range(3):
            await w.issue()
        await w.engine.prefixes.accept(IdRange.of_mount("aws"), "test")
        await w.until_gone()
        assert len(notes.lags) == 3
        assert max(notes.lags) < 2.0


@virtual
async def test_the_lag_over_an_outage_is_the_whole_of_it() -> None:
    notes = Notes()
    async with world(meter=notes) as w:
        asked, expiring = await w.issue(), await w.issue(ttl=30)
        w.aws.away = True
        await w.revoke(asked.lease.id)
        await w.events.until(AccountPaused)
        await asyncio.sleep(1000)
        assert notes.lags == []
        w.aws.away = False
        await w.until_gone()
        assert len(notes.lags) == 2
        assert min(notes.lags) > 960, (asked, expiring)


@virtual
async def test_a_key_that_is_already_deleted_is_not_measured_again() -> None:
    notes = Notes()
    async with world(meter=notes) as w:
        made = await w.issue()
        w.aws.faults.add(Fault(Kind.REFUSE, "DeleteUser"))
        await w.revoke(made.lease.id)
        assert len(notes.lags) == 1
        await asyncio.sleep(4000)
        w.aws.faults.clear()
        await w.until_gone()
        assert len(notes.lags) == 1
