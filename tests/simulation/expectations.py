"""Records what really happened, which no part of the product knows. The invariants are checked against it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.events import AccountResumed, Event, ExpiryResumed
from lessor_server.domain.lease import State
from tests.simulation.disk import Change
from tests.simulation.journal import suffix
from tests.simulation.wire import Flight
from tests.support.iam import Iam
from tests.support.iam_rules import Answer
from tests.support.iam_user import User
from tests.support.memory_aws import GIVE_UP_SECONDS

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

TAKING = ("Delete", "Detach", "Remove")
SKEW_SECONDS = 242.0
"""How far two starts may differ about the time where the wall clock jumps: two minutes either way."""

SETTLE_SECONDS = 100.0
"""How long after a disturbance what falls due may still be late: probes are up to 30 s apart, looks 60 s."""


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that did not hold."""

    invariant: str
    subject: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Effect:
    """A call that reached its account, and the answer; ``sent_us`` is the service's time when it left."""

    account: Iam
    call: Call[object]
    answer: Answer
    sent_us: int

    @property
    def subject(self) -> str:
        """Return the journal's subject for the lease."""
        return suffix(self.call.user)


@dataclass(slots=True)
class Answered:
    """The request of a caller and the one message of its answer."""

    method: str
    request: Any
    answer: Any
    repeated: bool = False


@dataclass(slots=True)
class EndRequest:
    """A request to end all leases whose ids begin with a prefix and that were begun before ``until``.

    With an ``owner`` it is about the leases of that owner only.
    """

    prefix: str
    until: float = float("inf")
    owner: str = ""

    def covers(self, record: Record) -> bool:
        """Return whether it is about this lease."""
        own = self.owner in ("", record.owner)
        return own and record.lease_id.startswith(self.prefix) and record.began <= self.until


@dataclass(slots=True)
class Caller:
    """The caller of a request: calls in progress, the end of the last one, and whether one was answered."""

    began: float
    waiting: int = 0
    calls: int = 0
    open: int = 0
    """Calls that may still be served, also where the caller has gone."""
    ended: float = 0.0
    served: bool = False
    replicas: dict[Process, None] = field(default_factory=dict)
    """Those that were called."""


@dataclass(slots=True)
class Record:
    """One lease as it really is. Instants are the world's seconds, ``…_us`` the service's."""

    lease_id: str
    user_name: str
    account: str
    owner: str
    request_id: str
    began: float
    due_by: float = float("inf")
    """When access must end at the latest, give or take the bound."""
    active_at: float = 0.0
    asked: bool = False
    """Somebody asked for its end, or changed the user from outside so that it may end."""
    touched: bool = False
    abandoned: bool = False
    """A person gave it up, perhaps for a while: then nobody has to end it."""
    promise: float = 0.0
    """Until when the key must be valid, by the last answer to a caller."""
    renewed: bool = False
    troubled: bool = False
    """A call for this user met a fault or a refusal: its end may be late."""
    begun_until_us: int = 0
    """When the creator's claim ended: the user of a later CreateUser is adopted, if its row is GONE."""
    create_sent_us: int = 0
    sends: int = 0
    refusals: int = 0
    """Calls sent and refused since the last claim."""
    late_keys: set[str] = field(default_factory=set)
    """Keys that a request made long after its sender had given it up: no look before could have met them."""


@dataclass(slots=True)
class Expectations:
    """Everything that is known of a run."""

    world: World
    records: dict[str, Record] = field(default_factory=dict)
    asks: list[EndRequest] = field(default_factory=list)
    callers: dict[str, Caller] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    """Names of users that somebody else made below our path."""
    shaken: float = 0.0
    disturbances: int = 0
    """How often all was disturbed: a death may come in the same instant as another one."""
    late: int = 0
    deaths: list[float] = field(default_factory=list)
    claimed: dict[str, int] = field(default_factory=dict)
    """Generations of rows that were claimed when the last process began."""

    # --- requests ------------------------------------------------------------------------------------------

    def of(self, lease_id: str) -> Record | None:
        """Return the record of a lease."""
        return self.records.get(suffix(lease_id))

    def ask(self, prefix: str, owner: str = "") -> EndRequest:
        """Record a request to end leases before it is sent."""
        ask = EndRequest(prefix, owner=owner)
        self.asks.append(ask)
        return ask

    def asked(self, record: Record) -> bool:
        """Return whether a caller asked for the end of this lease."""
        return record.asked or any(ask.covers(record) for ask in self.asks)

    def unwanted_since(self, record: Record) -> float | None:
        """Return since when no caller waits for an undelivered lease; None if one does, or got it."""
        caller = self.callers.get(record.owner)
        unknown = caller is None or record.abandoned or self.world.options.disk_faults
        if unknown or caller.served or caller.waiting:
            return None
        since = max(caller.ended, record.active_at)
        # A process that dies once a lease is ACTIVE can't know that it was undelivered: it lives to its end.
        died = any(caller.began <= death < since + SETTLE_SECONDS for death in self.deaths)
        if self.world.replicas.several:  # a stopped one notices it when it continues
            since = max(since, *(process.attentive_since for process in caller.replicas))
        return None if died else since

    def disturbed(self, record: Record, due: float) -> bool:
        """Return whether an end that was due at ``due`` may be late."""
        return record.troubled or record.touched or self.held or self.is_shaken(due)

    def is_shaken(self, due: float) -> bool:
        """Return whether an end that was due then may be late because all were disturbed.

        While no process runs, only a request that was sent before can end anything, minutes later.
        """
        if self.world.replicas.still:
            return True
        settled = self.shaken + SETTLE_SECONDS
        return due < settled and self.world.now() < settled

    @property
    def skew(self) -> float:
        """Return how many seconds the service's time may lead or lag."""
        return SKEW_SECONDS if self.world.options.jumps and not self.world.replicas.several else 0.05

    @property
    def held(self) -> bool:
        """Return whether every replica holds expiries."""
        running = self.world.replicas.running
        return bool(running) and all("held" in process.missing for process in running)

    # --- events --------------------------------------------------------------------------------------------

    def trouble(self, user: str) -> None:
        """Record that a call for a user met a fault."""
        record = self.records.get(suffix(user))
        if record is not None:
            record.troubled = True

    def refused(self, user: str) -> None:
        """Record that a call for a user was refused by the options of the run."""
        record = self.records.get(suffix(user))
        if record is not None:
            record.refusals += 1

    def heard(self, event: Event) -> None:
        """Record an event of the engine."""
        if isinstance(event, (ExpiryResumed, AccountResumed)):
            self.world.shake()

    def about_to_start(self) -> None:
        """Record which rows are claimed by a dead process."""
        self.claimed = {
            lease_id: row.lease.generation
            for lease_id, row in self.world.store.rows.items()
            if row.claimed_by and row.lease.state in (State.INTENT, State.REVOKING)
        }

    def sent(self, flight: Flight) -> None:
        """Record a request that is sent."""
        record = self.records.get(suffix(flight.call.user))
        if record is None:
            return
        record.sends += 1
        if flight.call.action == "CreateUser":
            record.create_sent_us = flight.sent_us

    def carried_out(self, effect: Effect) -> None:
        """Record an effect."""
        answer = effect.answer
        if answer.ok and effect.call.action == "CreateAccessKey":
            key: Any = answer.result["AccessKey"]
            self.secrets.add(key["SecretAccessKey"])
            self._late(effect, key["AccessKeyId"])
        if answer.ok and "Credentials" in answer.result:
            made: Any = answer.result["Credentials"]
            self.secrets |= {made["SecretAccessKey"], made["SessionToken"]}
        record = self.records.get(effect.subject)
        if record is not None and answer.ok and effect.call.action == "CreateUser":
            row = self.world.store.rows.get(record.lease_id)
            # A user of a late request is adopted; it never has a key.
            record.troubled |= row is not None and row.lease.state is State.GONE
        if record is not None and not answer.ok:
            refused = answer.code != "NoSuchEntity"
            record.troubled |= record.user_name in answer.message
            record.troubled |= refused and effect.call.action.startswith(TAKING)
            record.refusals += refused

    def _late(self, effect: Effect, key_id: str) -> None:
        record = self.records.get(effect.subject)
        given_up_us = effect.sent_us + int(GIVE_UP_SECONDS * 1e6)
        if record is not None and self.world.store.now() > given_up_us:
            record.late_keys.add(key_id)

    def changed(self, change: Change) -> None:
        """Record the change of a row."""
        lease_id, old, new = change
        if new is None:
            return
        lease, now = new.lease, self.world.now()
        record = self.records.get(suffix(lease_id))
        if record is None:
            request_id = lease.request.id if lease.request else ""
            footprint = lease.footprint
            record = Record(
                lease_id, footprint.user_name, footprint.account, lease.owner, request_id, began=now
            )
            record.begun_until_us = lease.due_us
            self.records[suffix(lease_id)] = record
        if lease.state is State.ACTIVE:
            if old is not None and old.lease.state is State.INTENT:
                record.active_at = now
            record.due_by = now + (lease.expires_us - self.world.store.now()) / 1e6
            # A lease that is issued with an untrusted clock ends by that clock.
            record.troubled = record.troubled or abs(self.world.clock_error) > 120.0
        elif lease.state is State.REVOKING:
            record.due_by = min(record.due_by, now)
            record.troubled = record.troubled or bool(lease.attempts)
        elif lease.state is State.ABANDONED:
            record.due_by, record.abandoned = math.inf, True
        if new.claimed_by and (old is None or not old.claimed_by):
            record.sends = record.refusals = 0

    # --- users ---------------------------------------------------------------------------------------------

    def user(self, record: Record) -> User | None:
        """Return the user of a lease, where it exists."""
        return self.world.account_of(record.account).users.get(record.user_name.casefold())

    def users(self) -> Iterator[User]:
        """Yield the users of ours on all accounts."""
        for account in (self.world.mine, self.world.other):
            for user in account.users.values():
                if user.path.startswith(f"/lessor/{self.world.instance}/"):
                    yield user
