"""Rotates the data key: all rows are sealed again under a new one, in steps that are durable each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import LessorError, StoreUnavailable
from lessor_server.domain.events import SealingKeyRotated
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.replicas.key_agreement import KeyAgreement
from lessor_server.engine.sealing_ports import DataKeys
from lessor_server.engine.waiting import wait_for

ROWS_PER_STEP: Final = 500
RETRY_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 60.0
"""The interval at which a replica looks for a rotation that another one has left unfinished."""


@dataclass(frozen=True, slots=True)
class RotatedDataKey:
    """The id of the new data key, and how many stored values were sealed again."""

    key_id: str
    resealed: int


class SealingKeys:
    """Rotates the data key for a caller, and finishes at a start what an earlier process began."""

    def __init__(
        self,
        store: Store,
        keys: DataKeys,
        notify: Observer,
        work: BackgroundTasks,
        agreement: KeyAgreement | None = None,
    ) -> None:
        """Rotate ``keys`` and seal the rows of ``store``, in ``agreement`` with other replicas."""
        self._agreement = agreement
        self._store = store
        self._keys = keys
        self._notify = notify
        self._work = work
        self._turn = asyncio.Lock()
        self._unfinished = asyncio.Event()

    async def rotate(self, by: str) -> RotatedDataKey:
        """Return once every row is sealed under a new data key; it goes on if the caller disconnects.

        If an earlier rotation is unfinished, finish that instead.

        Raises:
            SealingKeyUnavailable: KMS does not wrap a new key now; nothing was changed.
            SealingKeyUnusable: It never will, as after the deletion of its key; nothing was changed.
            StoreUnavailable: It is finished once the store can write.
        """
        done: asyncio.Future[RotatedDataKey] = asyncio.get_running_loop().create_future()

        async def rotate() -> None:
            try:
                with self._work.unit("rotate the sealing key"):
                    rotated = await self._rotate(by)
            except LessorError as error:
                self._unfinished.set()
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(rotated)
            finally:
                done.cancel()

        self._work.start(rotate())
        return await done

    async def _rotate(self, by: str) -> RotatedDataKey:
        async with self._turn:
            if len(await self._store.list_data_keys()) <= 1:
                await self._store.add_data_key(await self._keys.make())
            return await self._finish(by)

    async def run(self) -> None:
        """Finish the rotation of an earlier process, and later each one that the store did not let end."""
        while True:
            self._unfinished.clear()
            try:
                await self.finish_earlier()
                if self._agreement is None:
                    await self._unfinished.wait()
                else:  # another replica may have ended in the middle of a rotation
                    await wait_for(self._unfinished, LOOK_SECONDS)
            except StoreUnavailable as error:
                await asyncio.sleep(error.retry_in or RETRY_SECONDS)

    async def finish_earlier(self) -> None:
        """Finish the rotation that is under way in the store, if there is one."""
        async with self._turn:
            if len(await self._store.list_data_keys()) > 1:
                await self._finish("")

    async def _finish(self, by: str) -> RotatedDataKey:
        """Seal what is not sealed under the active data key, and delete the others."""
        if self._agreement is not None:
            active = await self._agreement.agree()
        else:
            active = next(key.id for key in await self._store.list_data_keys() if key.is_active)
            self._keys.use(active)
        resealed, mount = 0, ""
        while step := await self._store.reseal_mount(mount):
            mount, values = step
            resealed += values
        lease: str | None = ""
        while lease is not None:
            lease = await self._store.reseal_leases(lease, ROWS_PER_STEP)
        token: str | None = ""
        while token is not None:
            token = await self._store.reseal_login_tokens(token, ROWS_PER_STEP)
        await self._store.drop_data_keys(active)
        if self._agreement is None:
            self._keys.forget_all_but(active)
        self._notify(SealingKeyRotated(active, resealed, by))
        return RotatedDataKey(active, resealed)
