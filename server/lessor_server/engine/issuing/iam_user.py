"""Creates the IAM user of one lease in two rounds of calls, and repeats calls until their effect is clear.

A call without an answer may have had an effect. Names are unique, so if CreateUser finds its name in use, an
earlier CreateUser has worked. Puts and attachments can be repeated. Before another CreateAccessKey all listed
keys of the user are deleted, since nobody has their secrets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lessor_server.domain.aws import plans
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import (
    AccessKey,
    CreateAccessKey,
    CreatedUser,
    CreateUser,
    GetUser,
    ListAccessKeys,
)
from lessor_server.domain.errors.base import Aborted, LessorError
from lessor_server.engine.aws.caller import AwsCaller, Outcome


class IamUserBuilder:
    """Creates one user; ``last_create_us`` is when CreateUser was last sent, 0 if that had no effect."""

    def __init__(self, caller: AwsCaller, now: Callable[[], int], may_retry: Callable[[], bool]) -> None:
        """Send through ``caller``; repeat calls while ``may_retry()`` is true."""
        self._caller = caller
        self._now = now
        self._may_retry = may_retry
        self.last_create_us = 0

    async def create(self, call: CreateUser) -> Outcome[CreatedUser]:
        """Create the user."""
        tries = 0
        while True:
            tries += 1
            outcome = await self._caller.call(call, self._may_retry)
            if not _without_effect(outcome):
                self.last_create_us = self._now()
            if isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.ALREADY_EXISTS:
                return await self._find_user(call)
            if tries == self._caller.tries or not _fate_unknown(outcome) or not self._may_retry():
                return outcome

    async def _find_user(self, call: CreateUser) -> Outcome[CreatedUser]:
        """Return the user that an earlier CreateUser created although its answer was lost."""
        found = await self._caller.call(GetUser(call.user_name), self._may_retry)
        return CreatedUser(found.arn) if not isinstance(found, LessorError) else found

    async def attach_all(self, key_call: CreateAccessKey, calls: plans.Round) -> list[Outcome[object]]:
        """Create the key and attach everything else at the same time; the key's outcome comes first."""
        outcomes = await self._caller.call_all((key_call, *calls), self._may_retry)
        key, rest = outcomes[0], outcomes[1:]
        for _ in range(self._caller.tries - 1):
            again = [index for index, outcome in enumerate(rest) if _fate_unknown(outcome)]
            if not again or not self._may_retry():
                break
            repeated = await self._caller.call_all(tuple(calls[index] for index in again), self._may_retry)
            for index, outcome in zip(again, repeated, strict=True):
                rest[index] = outcome
        if _fate_unknown(key) and self._caller.tries > 1 and self._may_retry():
            key = await self._recreate_key(key_call)
        return [key, *rest]

    async def _recreate_key(self, call: CreateAccessKey) -> Outcome[AccessKey]:
        """Create a key after a CreateAccessKey without an answer; first delete what that may have created."""
        tries = 1
        while True:
            tries += 1
            failure = await self._delete_stray_keys(call.user_name, ())
            if failure is not None:
                return failure
            outcome = await self._caller.call(call, self._may_retry)
            if tries == self._caller.tries or not _fate_unknown(outcome) or not self._may_retry():
                return outcome

    async def create_second_key(
        self, call: CreateAccessKey, held: str, is_exclusive: Callable[[], Awaitable[bool]]
    ) -> Outcome[AccessKey]:
        """Create a second key beside ``held``; if the user has its maximum of keys, first delete the others.

        Deletes nothing if another process issues keys for this user: then ``is_exclusive()`` is False. After
        a deletion the call is sent again even with ``max_retries`` 0, because AWS rejected the first one.
        """
        tries = 0
        while True:
            tries += 1
            outcome = await self._caller.call(call, self._may_retry)
            full = isinstance(outcome, AwsRefused) and outcome.refusal is Refusal.LIMIT
            most = max(self._caller.tries, 2) if full else self._caller.tries
            if tries >= most or not (full or _fate_unknown(outcome)):
                return outcome
            failure = await self._delete_stray_keys(call.user_name, (held,), is_exclusive)
            if failure is not None:
                return failure

    async def _delete_stray_keys(
        self, user_name: str, keep: tuple[str, ...], is_exclusive: Callable[[], Awaitable[bool]] | None = None
    ) -> LessorError | None:
        """Delete the user's keys except those to ``keep``; None if they are deleted, else the error."""
        listed = await self._caller.call(ListAccessKeys(user_name), self._may_retry)
        if isinstance(listed, LessorError):
            return listed
        # Checked after the listing: a process that comes later creates a key that is not on the list.
        if is_exclusive is not None and not await is_exclusive():
            return Aborted(f"a key of {user_name} is being handed out by another process", retry_in=0.5)
        strays = tuple(key_id for key_id in listed if key_id not in keep)
        for outcome in await self._caller.call_all(plans.delete_keys(user_name, strays)):
            if isinstance(outcome, LessorError) and not _missing(outcome):
                return outcome
        return None


def _fate_unknown(outcome: object) -> bool:
    """Return whether a call was sent and may have had an effect."""
    return isinstance(outcome, AwsUnknown) and outcome.sent


def _missing(outcome: object) -> bool:
    return isinstance(outcome, AwsRefused) and outcome.refusal in (
        Refusal.NO_SUCH_USER,
        Refusal.NO_SUCH_OTHER,
    )


def _without_effect(outcome: Outcome[CreatedUser]) -> bool:
    """Return whether a CreateUser has certainly created no user."""
    if isinstance(outcome, AwsRefused):
        return outcome.refusal is not Refusal.ALREADY_EXISTS
    return isinstance(outcome, LessorError) and not _fate_unknown(outcome)
