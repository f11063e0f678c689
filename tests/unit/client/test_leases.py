"""A lease that is kept, in virtual time: renewed first, issued again last, revoked at its end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from google.protobuf.message import Message
from tests.support.fake_wire import FakeClock, FakeWire, RefusedCall

import lessor
from lessor import errors
from lessor.calls import Calls, run
from lessor.leases import LeaseKeeper, LeaseView
from lessor.v1 import creds_pb2, lease_pb2

HOUR = 3600.0


@dataclass
class Server:
    """Issues and renews leases until it is given something else to answer."""

    clock: FakeClock
    ttl: float = HOUR
    max_ttl: float = 4 * HOUR
    renewable: bool = True
    refusals: dict[str, RefusedCall] = field(default_factory=dict)
    issued: int = 0
    max_end: float = 0.0

    def answer(self, name: str, request: Message) -> Message | RefusedCall:
        """Answer one call."""
        if name in self.refusals:
            return self.refusals[name]
        if name == "GenerateCredentials":
            self.issued += 1
            self.max_end = self.clock.seconds + self.max_ttl
            made = creds_pb2.GenerateCredentialsResponse(
                lease_id=f"aws/creds/app/{self.issued}",
                access_key=f"AKIA{self.issued}",
                secret_key="top-secret",
                lease_renewable=self.renewable,
            )
            made.lease_duration.FromTimedelta(timedelta(seconds=self.ttl))
            made.expire_time.FromDatetime(self.clock.now() + timedelta(seconds=self.ttl))
            return made
        if name == "RenewLease":
            granted = min(self.ttl, self.max_end - self.clock.seconds)
            renewed = lease_pb2.RenewLeaseResponse(lease_renewable=granted == self.ttl)
            renewed.lease_duration.FromTimedelta(timedelta(seconds=granted))
            renewed.expire_time.FromDatetime(self.clock.now() + timedelta(seconds=granted))
            return renewed
        return lease_pb2.RevokeLeaseResponse(outcome=lease_pb2.RevokeLeaseResponse.GONE)


@dataclass
class World:
    """A lease, its server, and the clock of both."""

    clock: FakeClock
    server: Server
    wire: FakeWire
    keeper: LeaseKeeper

    @classmethod
    def of(cls, **server: float) -> World:
        """Return a world whose lease is issued."""
        clock = FakeClock()
        answering = Server(clock, **server)
        wire = FakeWire(answering.answer, clock)
        calls = Calls(wire, timedelta(seconds=30), random.Random(1))
        keeper = LeaseKeeper(calls, {"role": "app"}, clock, random.Random(1))
        run(keeper.issue())
        return cls(clock, answering, wire, keeper)

    def keep(self, seconds: float) -> None:
        """Keep the lease for a while."""
        end = self.clock.seconds + seconds

        async def wait(pause: float) -> bool:
            self.clock.seconds += max(pause, 0.001)
            return self.clock.seconds >= end

        run(self.keeper.keep(wait))


def test_a_lease_keeps_its_key_until_its_maximum() -> None:
    world = World.of()
    world.keep(3 * HOUR)
    assert world.server.issued == 1
    assert world.keeper.left() >= timedelta(seconds=HOUR / 3)
    assert set(world.wire.names()) == {"GenerateCredentials", "RenewLease"}
    # Each hour is renewed after 40 minutes.
    assert world.wire.names().count("RenewLease") == 4


def test_a_lease_at_its_maximum_is_replaced_and_both_are_revoked() -> None:
    world = World.of()
    world.keep(4 * HOUR)
    assert world.server.issued == 2
    assert world.keeper.credentials.access_key == "AKIA2"
    run(world.keeper.end())
    revoked = [request.lease_id for name, request in world.wire.sent if name == "RevokeLease"]  # type: ignore[attr-defined]
    assert revoked == ["aws/creds/app/1", "aws/creds/app/2"]


def test_a_lease_that_ended_long_ago_is_not_revoked() -> None:
    world = World.of(ttl=900.0, renewable=False)
    world.keep(3001.0)
    run(world.keeper.end())
    revoked = [request.lease_id for name, request in world.wire.sent if name == "RevokeLease"]  # type: ignore[attr-defined]
    assert revoked == ["aws/creds/app/5", "aws/creds/app/6"]


def test_a_session_is_replaced_before_its_end_and_never_renewed() -> None:
    world = World.of(ttl=900.0, renewable=False)
    world.keep(3001.0)
    assert "RenewLease" not in world.wire.names()
    assert world.server.issued == 1 + 3000 // 600
    assert world.keeper.left() >= timedelta(seconds=300)


@pytest.mark.parametrize(
    "refusal",
    [
        RefusedCall(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        RefusedCall(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_REVOKING"),
        RefusedCall(grpc.StatusCode.PERMISSION_DENIED, "NOT_YOUR_LEASE"),
    ],
)
def test_a_lease_that_was_revoked_is_replaced_at_the_next_renewal(refusal: RefusedCall) -> None:
    world = World.of()
    world.server.refusals["RenewLease"] = refusal
    world.keep(HOUR * 2 / 3 + 1)
    assert world.server.issued == 2
    assert world.keeper.error is None


def test_a_renewal_that_is_not_allowed_leaves_the_key_until_near_its_end() -> None:
    world = World.of()
    world.server.refusals["RenewLease"] = RefusedCall(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    world.keep(HOUR * 2 / 3 + 1)
    assert world.server.issued == 2, "20 minutes before the end"
    world = World.of(ttl=2 * HOUR)
    world.server.refusals["RenewLease"] = RefusedCall(grpc.StatusCode.FAILED_PRECONDITION, "NOT_RENEWABLE")
    world.keep(HOUR * 4 / 3 + 60)
    assert world.server.issued == 1
    assert world.keeper.error is None


def test_a_server_that_is_away_is_asked_again_with_pauses_and_keeps_the_key() -> None:
    world = World.of()
    world.server.refusals["RenewLease"] = RefusedCall(grpc.StatusCode.UNAVAILABLE)
    world.keep(HOUR * 2 / 3 + 300)
    tries = world.wire.names().count("RenewLease")
    assert 10 <= tries <= 30
    assert isinstance(world.keeper.error, errors.Unavailable)
    assert world.keeper.credentials.access_key == "AKIA1"
    del world.server.refusals["RenewLease"]
    world.keep(60)
    assert world.keeper.error is None
    assert world.server.issued == 1


def test_after_a_failure_a_refresh_is_not_due_for_a_while() -> None:
    world = World.of()
    world.server.refusals["RenewLease"] = RefusedCall(grpc.StatusCode.UNAVAILABLE)
    world.clock.seconds = 2500.0
    assert world.keeper.is_due()
    with pytest.raises(errors.Unavailable):
        run(world.keeper.refresh())
    assert not world.keeper.is_due()
    world.clock.seconds += 1
    assert world.keeper.is_due()


def test_a_clock_that_differs_from_the_servers_does_not_end_the_lease_early() -> None:
    """The lifetime then counts from the request."""
    clock = FakeClock()
    answering = Server(FakeClock(seconds=-7200.0))
    wire = FakeWire(answering.answer, clock)
    calls = Calls(wire, timedelta(seconds=30), random.Random(1))
    keeper = LeaseKeeper(calls, {"role": "app"}, clock, random.Random(1))
    run(keeper.issue())
    assert keeper.left() == timedelta(hours=1)


def test_a_revocation_that_fails_names_the_lease_and_the_others_are_still_revoked() -> None:
    world = World.of()
    run(world.keeper.issue())
    world.server.refusals["RevokeLease"] = RefusedCall(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(errors.Unavailable) as refused:
        run(world.keeper.end())
    assert "aws/creds/app/2 may not be revoked" in refused.value.__notes__[0]
    assert world.wire.names().count("RevokeLease") == 2


def test_a_lease_that_has_ended_is_not_issued_again() -> None:
    world = World.of()
    run(world.keeper.end())
    world.clock.seconds = HOUR
    with pytest.raises(RuntimeError, match="has ended; ask for another"):
        run(world.keeper.issue())


def test_a_lease_that_ends_during_an_issue_is_revoked() -> None:
    """A thread may close a session while another one replaces its credentials."""
    world = World.of()

    def answer(name: str, request: Message) -> Message | RefusedCall:
        made = world.server.answer(name, request)
        if name == "GenerateCredentials":
            run(world.keeper.end())
        return made

    world.wire.answer = answer
    with pytest.raises(RuntimeError, match="has ended"):
        run(world.keeper.issue())
    revoked = [request.lease_id for name, request in world.wire.sent if name == "RevokeLease"]  # type: ignore[attr-defined]
    assert revoked == ["aws/creds/app/1", "aws/creds/app/2"]


def test_a_client_that_was_closed_names_the_lease_that_is_not_revoked() -> None:
    client = lessor.sync.Client("127.0.0.1:1")
    client.close()
    world = World.of()
    world.keeper._calls = client._calls
    with pytest.raises(RuntimeError, match="the client is closed") as refused:
        run(world.keeper.end())
    assert "aws/creds/app/1" in refused.value.__notes__[0]


def test_a_lease_is_entered_once() -> None:
    world = World.of()
    lease = lessor.sync.Client("127.0.0.1:1")._make_lease(world.keeper)
    with pytest.raises(RuntimeError, match="was entered before"), lease:
        pass


def test_no_secret_is_in_the_repr_of_a_lease() -> None:
    world = World.of()
    view = LeaseView(world.keeper)
    assert view.secret_key == "top-secret"
    assert "AKIA1" in repr(view)
    assert "top-secret" not in repr(view) + repr(view.credentials)
