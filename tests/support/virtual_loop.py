"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing is ready.

A run depends only on its seed: callbacks that are ready at the same time run in an order that the seed
determines, so that a test can't pass because of one lucky order. The loop supports only tasks, timers and
futures: the answer of a thread would arrive long after its virtual time has passed.
"""

from __future__ import annotations

import asyncio
import functools
import random
from asyncio import futures
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")
END_SLEEP: Final = futures._set_result_unless_cancelled  # type: ignore[attr-defined]
"""What the timer of ``asyncio.sleep`` calls."""


class DeadlockError(AssertionError):
    """Nothing is ready and no timer is set: every task waits for another task."""


class Handle(float):
    """A callback; as a number it is the time of its timer, so that a heap compares it quickly."""

    __slots__ = ("args", "callback", "context")
    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: Context

    def cancel(self) -> None:
        """Never call it."""
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self.callback is None


class TimerHandle(Handle):
    """A callback to be called at a time."""

    __slots__ = ("loop",)
    loop: VirtualLoop | None
    """The loop that has it in its heap."""

    def cancel(self) -> None:
        """Never call it."""
        if self.callback is not None:
            self.callback, self.args = None, ()
            if self.loop is not None:
                self.loop.cancelled_timers += 1

    def when(self) -> float:
        """Return its time."""
        return float(self)


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop; its ``time()`` starts at 0 and advances only while every task waits.

    The simulator spends a third of its time here, so each callback costs as little as possible.
    """

    def __init__(self, seed: int = 0) -> None:
        """Choose the order of ready callbacks by ``seed``."""
        self.now = 0.0
        """The virtual time in seconds."""
        self.lateness = 0.0
        """By how many seconds timers are late in the mean, as on a busy machine."""
        self._rng = random.Random(seed)
        super().__init__()
        self._ready: list[Handle] = []
        self._scheduled: list[TimerHandle] = []
        self.cancelled_timers = 0
        """How many of those that are scheduled."""
        self._holds_back = False
        """Whether ``_hold_back`` is called before each turn."""

    get_debug = staticmethod(bool)  # False: each task and each future asks, which costs more in Python

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def call_soon(  # type: ignore[override] # these handles have the methods of asyncio's
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Call ``callback`` in the next turn."""
        handle = Handle()
        handle.callback = callback
        handle.args = args
        handle.context = copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Call ``callback`` in the next turn; nobody has to be woken up, as the loop never waits."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback`` at a time."""
        handle = TimerHandle(when)
        handle.callback = callback
        handle.args = args
        handle.context = copy_context() if context is None else context
        handle.loop = self
        heappush(self._scheduled, handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> TimerHandle:
        """Call ``callback`` after so many seconds."""
        handle = TimerHandle(self.now + delay)
        handle.callback = callback
        handle.args = args
        handle.context = copy_context() if context is None else context
        handle.loop = self
        heappush(self._scheduled, handle)
        return handle

    def _run_once(self) -> None:
        """Run turn after turn until the loop is to stop, which saves a call a turn."""
        timers, draw = self._scheduled, self._rng.getrandbits
        while True:
            if self._holds_back:
                self._hold_back()
            ready = self._ready
            if timers and (timers[0].callback is None or len(timers) > 100):
                self._drop_cancelled()
            if not ready and not self._stopping:
                if not timers:
                    self._raise_deadlock()
                if timers[0] > self.now:
                    self.now = timers[0] + 0.0
                if self.lateness:
                    self.now += self._rng.expovariate(1 / self.lateness)
            due, until = [], self.now + 1e-9
            while timers and timers[0] < until:
                timer = heappop(timers)
                timer.loop = None
                if timer.callback is END_SLEEP:  # as for most timers; the task continues in this turn
                    future, result = timer.args
                    if not future.done():
                        future.set_result(result)
                else:
                    due.append(timer)
            for index in range(len(ready) - 1, 0, -1):  # as ``Random.shuffle``, with fewer calls
                bits = (index + 1).bit_length()
                other = draw(bits)
                while other > index:
                    other = draw(bits)
                ready[index], ready[other] = ready[other], ready[index]
            self._ready = []
            for handle in (ready + due) if due else ready:
                callback = handle.callback
                if callback is not None:
                    try:
                        handle.context.run(callback, *handle.args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:  # noqa: BLE001 - as asyncio does
                        self.call_exception_handler({"message": f"{callback} raised", "exception": error})
            if self._stopping:
                return

    def _hold_back(self) -> None:
        """Change what is ready or scheduled, before a turn; the list of timers stays the same list."""

    def _drop_cancelled(self) -> None:
        """Remove cancelled timers: those at the head, and all if they are the majority."""
        timers = self._scheduled
        if len(timers) > 100 and self.cancelled_timers > len(timers) / 2:
            timers[:] = [timer for timer in timers if timer.callback is not None]
            heapify(timers)
            self.cancelled_timers = 0
        while timers and timers[0].callback is None:
            heappop(timers).loop = None
            self.cancelled_timers -= 1

    def _raise_deadlock(self) -> NoReturn:
        waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
        raise DeadlockError(f"nothing is ready and no timer is set; these wait: {', '.join(waiting)}")

    def _process_events(self, event_list: object) -> None:
        """Do nothing: there are no files."""


def run(main: Coroutine[Any, Any, T], seed: int = 0) -> T:
    """Run ``main`` in virtual time and return its result; a deadlock raises ``DeadlockError``."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(main)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Turn an async test into one that pytest runs in virtual time."""

    @functools.wraps(test)
    def within(*args: object, **kwargs: object) -> None:
        run(test(*args, **kwargs))

    return within
