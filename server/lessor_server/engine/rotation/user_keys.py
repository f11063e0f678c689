"""Lists, creates, deactivates, deletes and verifies the access keys of a rotation's user."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from lessor_server.domain.aws import iam_calls, sts_calls
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal, for_caller
from lessor_server.domain.aws.iam_calls import AccessKey, Call, VerifyKeyOnIam
from lessor_server.domain.errors.base import KeyNotAccepted, LessorError, RateLimiterFull
from lessor_server.domain.errors.preconditions import RootAccountChanged
from lessor_server.domain.rotation import Rotation, key_context
from lessor_server.domain.secret import Secret
from lessor_server.engine.aws.caller import Outcome, is_inconclusive
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.ports import Store
from lessor_server.engine.rotation.key_owner import (
    find_other_use,
    get_signing_root,
    list_signing_roots,
    open_fresh,
)
from lessor_server.engine.sealing_ports import Sealer

T = TypeVar("T")

VERIFICATIONS, PAUSE_SECONDS, VERIFY_SECONDS = 3, 0.5, 60.0
SILENT_ROUNDS = 2
"""The number of consecutive checks without an answer that end the verification."""
_UNHEARD = (AwsUnknown, RateLimiterFull)
_GONE = (Refusal.NO_SUCH_USER, Refusal.NO_SUCH_OTHER)


class UserKeys:
    """Calls AWS about the keys of a rotation's user."""

    def __init__(self, store: Store, roots: Roots, sealer: Sealer) -> None:
        """Send through ``roots``; ``store`` knows which keys are in use."""
        self._store = store
        self._roots = roots
        self._sealer = sealer

    async def list(self, rotation: Rotation) -> tuple[str, ...]:
        """Return the ids of the user's keys, oldest first; none if the user is deleted."""
        outcome = await self._send_signed(rotation, iam_calls.ListAccessKeys(rotation.user_name))
        if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.NO_SUCH_USER:
            return ()
        return _value(outcome)

    async def is_same_user(self, rotation: Rotation) -> bool:
        """Return whether a static role's user still exists and is the one that the rotation began with.

        A root is not checked: it may lack the permission, and its key works only for the same user.
        """
        if rotation.is_root:
            return True
        outcome = await self._send_signed(rotation, iam_calls.GetUser(rotation.user_name))
        if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.NO_SUCH_USER:
            return False
        return _value(outcome).user_id == rotation.user_id

    async def create(self, rotation: Rotation) -> Outcome[AccessKey]:
        """Send CreateAccessKey, once, and return its outcome."""
        root = await get_signing_root(self._roots, rotation)
        return await self._roots.caller(root).call(iam_calls.CreateAccessKey(rotation.user_name))

    async def may_repeat(self, rotation: Rotation) -> bool:
        """Return whether the root's ``max_retries`` allows a retry of a call of unknown fate."""
        return self._roots.caller(await get_signing_root(self._roots, rotation)).tries > 1

    async def deactivate(self, rotation: Rotation, key_id: str) -> None:
        """Deactivate a key; a deleted one is a success too."""
        await self._send_removal(
            rotation, iam_calls.UpdateAccessKey(rotation.user_name, key_id, active=False)
        )

    async def delete(self, rotation: Rotation, key_id: str) -> None:
        """Delete a key; a deleted one is a success too."""
        await self._send_removal(rotation, iam_calls.DeleteAccessKey(rotation.user_name, key_id))

    async def delete_unused(self, rotation: Rotation, key_id: str) -> None:
        """Delete a key, unless a mount or another static role uses it."""
        await self.require_unused(rotation, key_id)
        await self.delete(rotation, key_id)

    async def require_unused(self, rotation: Rotation, key_id: str) -> None:
        """Raise ``RootKeyInUse`` or ``StaticKeyInUse`` if a mount or another static role uses a key."""
        use = await find_other_use(self._store, self._roots, key_id, rotation.subject)
        if use is not None:
            raise use

    async def select_unused(self, rotation: Rotation, key_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return the keys that no mount and no other static role uses."""
        found: tuple[str, ...] = ()
        for key_id in key_ids:
            if await find_other_use(self._store, self._roots, key_id, rotation.subject) is None:
                found += (key_id,)
        return found

    async def verify(self, rotation: Rotation, key: AccessKey) -> None:
        """Return once STS and IAM have accepted a key in three consecutive checks, 0.5 s apart.

        Raises:
            KeyNotAccepted: AWS still refused it after a minute.
            AwsUnavailable: AWS did not answer two consecutive checks, or not every check within a minute.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + VERIFY_SECONDS
        caller = self._roots.caller(await get_signing_root(self._roots, rotation))
        running = silent = 0
        while True:
            outcomes = await caller.call_all(
                (sts_calls.VerifyKey(key), VerifyKeyOnIam(key, rotation.user_name))
            )
            refusals = [outcome for outcome in outcomes if isinstance(outcome, LessorError)]
            running = 0 if refusals else running + 1
            silent = silent + 1 if all(isinstance(one, _UNHEARD) for one in outcomes) else 0
            if running == VERIFICATIONS:
                return
            if silent == SILENT_ROUNDS or (refusals and loop.time() >= until):
                raise _not_verified(rotation, refusals)
            await asyncio.sleep(PAUSE_SECONDS)

    def seal(self, rotation: Rotation, key: AccessKey) -> bytes:
        """Seal the secret of a key for the rotation's row."""
        return self._sealer.seal(
            key.secret.reveal().encode(), key_context(rotation.subject), key.access_key_id
        )

    def open_fresh(self, rotation: Rotation) -> Secret:
        """Decrypt the secret of the key that is being verified."""
        return open_fresh(self._sealer, rotation)

    async def _send_removal(self, rotation: Rotation, call: Call[None]) -> None:
        outcome = await self._send_signed(rotation, call)
        if not (isinstance(outcome, AwsRefused) and outcome.refusal in _GONE):
            _value(outcome)

    async def _send_signed(self, rotation: Rotation, call: Call[T]) -> Outcome[T]:
        """Send a call signed by the first root to which AWS does not deny it."""
        outcome: Outcome[T] = RootAccountChanged(
            f"the root is of another account than user {rotation.user_name}", subject=rotation.mount
        )
        for root in await list_signing_roots(self._roots, self._sealer, rotation):
            outcome = await self._roots.caller(root).call(call)
            if not (isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.DENIED):
                break
        return outcome


def _not_verified(rotation: Rotation, refusals: list[LessorError]) -> LessorError:
    """Return why a key is not verified: AWS refused it, or did not answer every check."""
    silent = [one for one in refusals if is_inconclusive(one)]
    if silent:
        return for_caller(silent[0])
    refused = KeyNotAccepted(f"AWS does not accept the new key of {rotation.user_name}", retry_in=10.0)
    refused.aws = refusals[0].aws
    return refused


def _value(outcome: Outcome[T]) -> T:
    if not isinstance(outcome, LessorError):
        return outcome
    raise for_caller(outcome)
