"""Natural batches: what is asked for while a batch runs is the next batch, with one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NoReturn, TypeVar

from lessor_server.domain.errors.base import LessorError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH: Final = 500


@dataclass(slots=True)
class NaturalBatches(Generic[Item, Result]):
    """Runs items in batches, one batch at a time; ``run`` must be running.

    ``run_many`` returns for each item its result, or the error that its caller gets. Items with the same
    ``key`` are in different batches. If a batch fails for what one item holds, each item is run alone.
    """

    run_many: Callable[[Sequence[Item]], Awaitable[Sequence[Result | LessorError]]]
    key: Callable[[Item], Hashable]
    _waiting: list[tuple[Item, asyncio.Future[Result]]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, item: Item) -> Result:
        """Run an item in the next batch, and return its result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._wake.set()
        return await future

    async def run(self) -> NoReturn:
        """Run batches until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)  # let all ready items join
            batch = self._take()
            if batch:
                await self._run_batch(batch)
            if not self._waiting:
                self._wake.clear()

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Return the items of the next batch; those of cancelled callers are dropped."""
        keys: set[Hashable] = set()
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        rest: list[tuple[Item, asyncio.Future[Result]]] = []
        for item, future in self._waiting:
            if future.done():
                continue
            key = self.key(item)
            if key in keys or len(batch) == MAX_BATCH:
                rest.append((item, future))
            else:
                keys.add(key)
                batch.append((item, future))
        self._waiting = rest
        return batch

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self.run_many([item for item, _ in batch])
        except LessorError as error:
            for _, future in batch:
                _settle(future, error)
        except Exception as error:  # noqa: BLE001 - it is that of one item, and for its caller
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for one in batch:
                await self._run_batch([one])
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)


def _settle(future: asyncio.Future[Result], result: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
