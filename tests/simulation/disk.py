"""The store of a world: rules in memory, durable at each commit, and torn at a death.

Every async method of the store's port goes through ``Disk``, so a new method is also a crash point. A write
waits for the commit of its batch, as in the product. At a death each uncommitted batch is lost, kept, or kept
in part.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.rate_shares import SHARE_SECONDS
from lessor_server.engine.ports import Store
from lessor_server.engine.replica_ports import Fleet, ReplicaSign, ReplicaStore
from lessor_server.engine.store_types import StoreStatus
from tests.simulation.points import Fate
from tests.support.memory_rows import Row
from tests.support.memory_store import MemoryStore, step_name
from tests.support.virtual_loop import END_SLEEP

if TYPE_CHECKING:
    from tests.simulation.process import Process

READS = frozenset(
    (
        "backup",
        "get_bound_account",
        "count",
        "list_due_within",
        "get",
        "get_mount",
        "get_owner",
        "get_role",
        "list_data_keys",
        "get_root",
        "get_rotation",
        "is_current",
        "leases_by_user_name",
        "list_mounts",
        "list_owners",
        "list_roles",
        "list_static",
        "load_issue_context",
        "mount_names",
        "next_rotation_us",
        "page",
        "prefixes",
        "progress",
        "find_replacing_rotation",
        "find_static_holder",
        "find_last_event",
        "list_events",
        "list_static_of_disabled",
        "status",
        "list_unfinished_of_removed_mounts",
    )
)
METHODS = frozenset(
    name
    for port in (Store, ReplicaStore)
    for name, _ in inspect.getmembers(port, inspect.iscoroutinefunction)
)
LOST_SIGNS = 0.005
"""The share of signs of life whose answer is lost."""
MARK_EVERY_US = 5_000_000
Change = tuple[str, Row | None, Row | None]


class _Rows(dict[str, Row]):
    """Rows that record what changed since the last read of the changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []

    def __setitem__(self, key: str, row: Row) -> None:
        self.changes.append((key, self.get(key), row))
        super().__setitem__(key, row)

    def __delitem__(self, key: str) -> None:
        self.changes.append((key, self[key], None))
        super().__delitem__(key)


class _Done:
    """What can be awaited and is done."""

    __slots__ = ()

    def __await__(self) -> Iterator[None]:
        """Wait for nothing."""
        return _NOTHING


_DONE, _NOTHING = _Done(), iter(())


class DurableStore(MemoryStore):
    """What is durable; ``restart`` has the time of the last commit, as the high-water mark does."""

    def __init__(self, clock: Any, instance: str, *, shared: bool) -> None:
        """Begin empty; a ``shared`` store serves several processes and outlives each."""
        self.shared = shared
        super().__init__(clock, self._before, instance)
        self.rows: _Rows = _Rows()
        self._marked_us = self.now()

    def _before(self, name: str, *, reads: bool = False) -> Awaitable[None]:  # type: ignore[override]
        """Do nothing: time, deaths and failures are the disk's."""
        return _DONE

    async def void_stale_claims(self) -> int:
        """Void every claim, unless other processes may live."""
        return 0 if self.shared else await super().void_stale_claims()

    @property
    def kept_hold(self) -> str:
        """Return the stored reason of an expiry hold, or an empty text."""
        return self._why_held

    def mark(self) -> None:
        """Store the time with a commit."""
        if self.now() - self._marked_us >= MARK_EVERY_US:
            self._marked_us = self.now()

    def restart(self) -> None:
        """Go on from the wall clock or the mark, whichever is later."""
        self._offset_us = max(self._clock.wall_us(), self._marked_us) - self._clock.boot_us()
        self._first_start = False

    async def lower_clock(self) -> None:
        """Take the wall clock for the service's time."""
        await super().lower_clock()
        self._marked_us = self.now()


@dataclass(slots=True)
class _Write:
    """A write that waits for its batch."""

    name: str
    job: Callable[[], Any]
    began_us: int
    """When the engine asked for it, and worked the step out."""
    done: asyncio.Future[Any]
    fate: Fate | None

    def lose(self) -> None:
        """Answer that there was no answer."""
        self.done.set_exception(StoreUnavailable(f"the store did not answer {self.name}", retry_in=1.0))
        self.done.exception()


def _now(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the store in memory waits for nothing")


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Let other tasks run, as ``asyncio.sleep(0)`` does."""
    yield


class Disk:
    """The store as one process has it; ``engine.ports.Store``, method by method."""

    def __init__(self, process: Process) -> None:
        """Write for ``process``."""
        self._process = process
        self._world = process.world
        self._store = process.world.store
        self._batch: list[_Write] = []
        self._status = StoreStatus(self._world.instance, 1, first_start=process.number == 1)
        """The first process of all has a first start, and no other."""

    def drift_us(self) -> int:
        """Return how far the wall clock of the process' machine is ahead of the service's time."""
        ahead = self._world.replicas.wall_ahead.get(self._process.seat, 0.0)
        return self._store.drift_us() + int(ahead * 1e6)

    async def status(self) -> StoreStatus:
        """Return the state of the store."""
        await _turn()
        self._process.require_alive()
        if self._status.expiry_hold != self._store.kept_hold:
            self._status = replace(self._status, expiry_hold=self._store.kept_hold)
        return self._status

    async def report_alive(self, sign: ReplicaSign) -> Fleet:
        """Store a sign of life. There are too many for each to be an effect of the run."""
        asked, process, chance = self._world.now(), self._process, self._world.chance("signs")
        self._require_space("report_alive")
        answered = asyncio.get_running_loop().create_future()
        answered.get_loop().call_later(self._world.options.commit / 2, self._store_sign, sign, answered)
        fleet: Fleet = await answered
        process.require_alive()
        if chance.random() < LOST_SIGNS and process.ready:
            raise StoreUnavailable("the store did not answer report_alive", retry_in=1.0)
        for granted in fleet.granted:
            process.shares[granted.account] = granted.share, asked + SHARE_SECONDS
        return fleet

    def _store_sign(self, sign: ReplicaSign, answered: asyncio.Future[Fleet]) -> None:
        """Store a sign of life, and answer after the other half of the time of a commit."""
        if answered.done():
            return
        try:
            self._require_space("report_alive")
        except StoreUnavailable as error:
            answered.set_exception(error)
            return
        fleet = _now(self._store.report_alive(sign))
        self._process.signed_at = self._world.now()
        answered.get_loop().call_later(self._world.options.commit / 2, END_SLEEP, answered, fleet)

    def _require_space(self, name: str) -> None:
        """Raise if the process is dead or the disk is full."""
        self._process.require_alive()
        if self._world.disk_fails:
            raise StoreUnavailable(f"the store cannot do {name}: the disk is full", retry_in=1.0)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name in METHODS:
            method = self._reading(method) if name in READS else self._writing(name, method)
        setattr(self, name, method)
        return method

    def _reading(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def through(*args: Any, **kwargs: Any) -> Any:
            await _turn()
            self._process.require_alive()
            return await method(*args, **kwargs)

        return through

    def _writing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def through(*args: Any, **kwargs: Any) -> Any:
            step = step_name(*args) if name == "write" else name
            return await self._write(step, lambda: _now(method(*args, **kwargs)))

        return through

    async def _write(self, name: str, job: Callable[[], Any]) -> Any:
        self._process.require_alive()
        fate = self._world.points.meet(f"store {name}")
        if fate is not None:
            self._world.shake()
        if fate is Fate.BEFORE:
            self._process.kill()
            self._process.require_alive()
        if self._world.disk_fails:
            self._world.shake()
            await asyncio.sleep(self._world.options.commit)
            raise StoreUnavailable(f"the store cannot do {name}: the disk is full", retry_in=1.0)
        loop = asyncio.get_running_loop()
        write = _Write(name, job, self._store.now(), loop.create_future(), fate)
        self._batch.append(write)
        if len(self._batch) == 1:
            loop.call_later(self._world.options.commit, self._commit)
        result = await write.done
        self._process.require_alive()
        return result

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        if self._process.alive:
            for write in batch:
                self._make(write)

    def _make(self, write: _Write) -> None:
        """Execute one write and return its result, unless the process dies first."""
        if write.done.cancelled():
            write.done = asyncio.get_running_loop().create_future()
        if write.fate is Fate.UNDONE:
            write.lose()
            return
        try:
            result = write.job()
        except Exception as error:  # noqa: BLE001 - raised where the result is awaited
            write.done.set_exception(error)
            write.done.exception()
            return
        self._store.mark()
        changes = self._store.rows.changes
        changed = [lease_id for lease_id, _, _ in changes] if write.fate is not None else ()
        self._world.written(self._process, write.name, changes, write.began_us)
        if changed:
            for lease_id in changed:
                self._world.expectations.trouble(lease_id)  # whose hint may be lost
        if write.fate is Fate.AFTER:
            self._process.kill()
        elif write.fate is Fate.LOST:
            write.lose()
        elif not write.done.done():
            write.done.set_result(result)

    def hand_over(self) -> None:
        """Decide at a stop whether the current batch was already sent to the disk."""
        if self._world.chance("hand over").random() < 0.5:
            self._commit()

    def tear(self) -> None:
        """Decide at a death what of the current batch became durable."""
        batch, self._batch = self._batch, []
        rng = self._world.chance("tear")
        kept = rng.choice((0.0, 1.0, 0.5)) if batch else 0.0
        for write in batch:
            if rng.random() < kept:
                self._make(write)
