"""Rotations: each method is one job, and checks the generation before it writes."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from lessor_server.adapters.sql import keyring_statements as keyring_sql
from lessor_server.adapters.sql import rows
from lessor_server.adapters.sql import statements as sql
from lessor_server.adapters.sql.base import StorePart
from lessor_server.adapters.sql.columns import (
    Column,
    Malformed,
    Row,
    Table,
    blob,
    count,
    instant,
    numbered,
    one_of,
    read_json,
    require_flag,
    require_number,
    require_text,
    require_texts,
    span_us,
    text,
    whole,
)
from lessor_server.adapters.sql.row_macs import place_root, place_rotation
from lessor_server.adapters.sql.transaction import REPEAT, Again, Job, Transaction, require_row
from lessor_server.domain.errors.preconditions import StaticUserTaken
from lessor_server.domain.lease import STUCK_AFTER
from lessor_server.domain.lease_id import IdRange, is_name
from lessor_server.domain.root import Hop, StoredRoot, root_context
from lessor_server.domain.rotation import CLAIM_US, Phase, Rotation, key_context, static_prefix
from lessor_server.domain.schedule import Schedule
from lessor_server.domain.schedule import violations as schedule_violations


class StoredRotations(StorePart):
    """The rows of rotations."""

    async def add_rotation(self, rotation: Rotation) -> Rotation | None:
        """Store a new row, claimed; None if there is one.

        Raises:
            StaticUserTaken: Another static role has the user.
        """
        params = self._params(rotation) | {"account": rotation.account, "user_id": rotation.user_id}

        async def job(tx: Transaction) -> Rotation | None:
            if await tx.row(sql.GET_ROTATION, params) is not None:
                return None
            names_a_user = rotation.user_id and not rotation.is_root
            taken = await tx.row(sql.STATIC_USER, params) if names_a_user else None
            if taken is not None:
                raise StaticUserTaken(rotation.user_name, Rotation(taken[0]).title)
            added = await require_row(tx, sql.ADD_ROTATION, params | self._times())
            return await self._place(tx, added)

        return await self._jobs.write_alone(job, self._unless_stored(job))

    async def get_rotation(self, subject: str) -> Rotation | None:
        """Return one row."""
        return await self._find(ROTATIONS, sql.GET_ROTATION, {"subject": subject})

    async def list_static(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return the rows of a mount's static roles by name."""
        ids = IdRange.of_prefix(static_prefix(mount))
        params = rows.range_params(ids) | {"after": ids.low + after}
        return await self._page(ROTATIONS, sql.LIST_STATIC, params, limit)

    async def find_static_holder(self, key_id: str, without: str) -> Rotation | None:
        """Return the static role of a key, but not the subject ``without``."""
        return await self._find(ROTATIONS, sql.STATIC_HOLDER, {"key_id": key_id, "without": without})

    async def find_replacing_rotation(self, key_id: str) -> Rotation | None:
        """Return the root rotation that has replaced a key."""
        return await self._find(ROTATIONS, sql.ROTATED_AWAY, {"key_id": key_id})

    async def list_static_of_disabled(self) -> list[Rotation]:
        """Return the static roles of all disabling mounts."""
        return await self._list(ROTATIONS, sql.STATIC_OF_DISABLED, {})

    async def forget_static(self, mount: str) -> None:
        """Delete the rows of a disabling mount's static roles, including unreadable ones."""
        params = rows.range_params(IdRange.of_prefix(static_prefix(mount))) | {"mount": mount}

        async def job(tx: Transaction) -> None:
            if await tx.change(sql.FORGET_STATIC, params):
                places = await tx.rows(keyring_sql.PLACES, {"mount": mount})
                static = key_context(static_prefix(mount))
                await self._macs.drop(tx, mount, *(one for (one,) in places if str(one).startswith(static)))

        await self._jobs.write_alone(job, REPEAT)

    async def list_unfinished_of_removed_mounts(self) -> list[Rotation]:
        """Return the unfinished rotations of mounts that ``remove_disabled`` would remove."""
        return await self._list(ROTATIONS, sql.UNFINISHED_OF_REMOVED, {"stuck": STUCK_AFTER})

    async def forget_rotation(self, rotation: Rotation) -> bool:
        """Delete a row of this generation."""

        async def job(tx: Transaction) -> bool:
            deleted = await tx.change(sql.FORGET_ROTATION, params_of(rotation)) == 1
            if deleted:
                await self._macs.drop(tx, rotation.mount, key_context(rotation.subject))
            return deleted

        async def again(tx: Transaction, deleted: bool) -> bool:
            row = await tx.row(sql.GET_ROTATION, {"subject": rotation.subject})
            # Another role may have the name by now.
            is_there = row is not None and tuple(row[2:4]) == (rotation.generation, rotation.due_us)
            return await job(tx) if is_there or not deleted else True

        return await self._jobs.write_alone(job, again)

    async def claim_rotation(self, subject: str) -> Rotation | None:
        """Claim a row that is free, due or not."""
        return await self._change_rotation(sql.CLAIM_ROTATION, {"subject": subject})

    async def claim_rotations(self, limit: int, without: frozenset[str]) -> list[Rotation]:
        """Claim what is due, earliest first."""

        async def job(tx: Transaction) -> list[Rotation]:
            times = self._times()
            asked = times | {"limit": limit, "without": json.dumps(sorted(without))}
            found = []
            for (subject,) in await tx.rows(sql.DUE_ROTATIONS, asked):
                if isinstance(subject, str):
                    found.append(await tx.row(sql.CLAIM_ROTATION, times | {"subject": subject}))
                else:
                    await tx.change(sql.POSTPONE_UNREADABLE_ROTATION, times | {"subject": subject})
                    self._reader.note("rotations", repr(subject), "subject is not a string")
            return await self._reader.readable(tx, ROTATIONS, (row for row in found if row is not None))

        async def again(tx: Transaction, claimed: list[Rotation]) -> list[Rotation]:
            kept = [one for one in claimed if await self._is_stored(tx, one)]
            return kept or await job(tx)

        return await self._jobs.write_alone(job, again)

    async def next_rotation_us(self, without: frozenset[str]) -> int:
        """Return when the next row is due, or 0 for never."""
        params: rows.Params = {"without": json.dumps(sorted(without))}
        (due_us,) = await self._jobs.read(lambda tx: require_row(tx, sql.NEXT_ROTATION, params), single=True)
        return due_us or 0

    async def move_rotation(self, rotation: Rotation, *, done: bool) -> Rotation | None:
        """Write a claimed row and keep the claim, or release it if ``done``."""
        return await self._change_rotation(
            sql.MOVE_ROTATION, self._params(rotation) | {"claimed": not done}, done=done
        )

    async def switch_root(self, rotation: Rotation, root: StoredRoot) -> Rotation | None:
        """Write a claimed row, and the root if its version is unchanged: both or neither."""
        rows.require_storable(root)
        given: rows.Params = {
            "mount": root.mount,
            "version": root.version,
            "etag": root.etag,
            "root_sealed": self._macs.reseal(root.sealed, root_context(root.mount), str(root.version)),
        }
        params = self._params(rotation) | given | {"claimed": True}

        async def job(tx: Transaction) -> Rotation | None:
            for condition in (sql.ROTATION_IS, sql.ROOT_BEFORE):
                if await tx.row(condition, params) is None:
                    return None
            await self._reader.one(tx, rows.ROOTS, await tx.row(sql.GET_ROOT, params))
            await tx.change(sql.SWITCH_ROOT, params)
            await self._macs.put(tx, place_root(await require_row(tx, sql.GET_ROOT, params)))
            until = {"due_us": self.now() + CLAIM_US}
            return await self._place(tx, await require_row(tx, sql.MOVE_ROTATION, params | until))

        return await self._jobs.write_alone(job, self._unless_stored(job))

    def _times(self) -> rows.Params:
        now = self.now()
        return {"now": now, "until": now + CLAIM_US}

    async def _change_rotation(
        self, statement: str, params: rows.Params, *, done: bool = False
    ) -> Rotation | None:
        """Run one conditional change and return the new row, or None if the condition failed."""

        async def job(tx: Transaction) -> Rotation | None:
            times = self._times()
            due = {} if done else {"due_us": times["until"]}
            row = await tx.row(statement, params | times | due)
            if row is None:
                return None
            if "body" in params:
                return await self._place(tx, row)
            return await self._reader.read(tx, ROTATIONS, row)

        return await self._jobs.write_alone(job, self._unless_stored(job))

    def _unless_stored(self, job: Job[Rotation | None]) -> Again[Rotation | None]:
        """Return what repeats a job unless the row that it has returned is stored."""

        async def again(tx: Transaction, written: Rotation | None) -> Rotation | None:
            return written if written and await self._is_stored(tx, written) else await job(tx)

        return again

    async def _is_stored(self, tx: Transaction, rotation: Rotation) -> bool:
        """Return whether the row is exactly this: nobody else writes the same, with the same due time."""
        row = await tx.row(sql.GET_ROTATION, {"subject": rotation.subject})
        return await self._reader.one(tx, ROTATIONS, row) == rotation

    async def _place(self, tx: Transaction, row: Row) -> Rotation:
        """Store the MAC of a row that was written, and return the rotation."""
        await self._macs.put(tx, place_rotation(row))
        return await self._reader.read(tx, ROTATIONS, row)

    def _params(self, rotation: Rotation) -> rows.Params:
        """Return the columns of a rotation, its secrets under the data key in use."""
        place = key_context(rotation.subject)
        return params_of(rotation) | {
            "sealed": self._macs.reseal(rotation.sealed, place, rotation.current),
            "fresh_sealed": self._macs.reseal(rotation.fresh_sealed, place, rotation.fresh_version),
        }


def params_of(rotation: Rotation) -> rows.Params:
    """Return the columns of a rotation."""
    schedule = rotation.schedule
    body = {
        "period_us": None if schedule.period is None else rows.us(schedule.period),
        "cron": schedule.cron,
        "window_us": None if schedule.window is None else rows.us(schedule.window),
        "assume_chain": [[hop.role_arn, hop.external_id] for hop in rotation.assume_chain],
        **{field: getattr(rotation, field) for field in _BODY},
    }
    return {
        "subject": rotation.subject,
        "phase": rotation.phase.value,
        "generation": rotation.generation,
        "due_us": rotation.due_us,
        "late_us": rotation.last_check_us,
        "attempts": rotation.attempts,
        "sealed": rotation.sealed,
        "fresh_sealed": rotation.fresh_sealed,
        "body": json.dumps(body),
    }


_TEXTS = ("account", "user_name", "user_id", "current", "previous", "fresh", "last_error")
_NUMBERS = {"live_keys": whole(1, 2), "next_us": instant, "retire_us": instant}
_LISTS = ("keys_before", "away")
_FLAGS = ("inactive", "ending", "held")
_BODY = (*_TEXTS, *_NUMBERS, *_LISTS, *_FLAGS)


def _rotation(row: Row) -> Rotation:
    """Return the rotation of a row; members that another version did not write get their defaults."""
    subject, phase, generation, due_us, last_check_us, attempts, sealed, fresh_sealed, body = row
    plain = read_json(body, dict)
    kept: dict[str, Any] = {field: require_text(plain[field], field) for field in _TEXTS if field in plain}
    kept |= {
        field: require_number(plain[field], field, problem)
        for field, problem in _NUMBERS.items()
        if field in plain
    }
    kept |= {field: require_texts(plain[field], field) for field in _LISTS if field in plain}
    kept |= {field: require_flag(plain[field], field) for field in _FLAGS if field in plain}
    return Rotation(
        subject=subject,
        schedule=_schedule(
            _span(plain.get("period_us"), "period_us"),
            require_text(plain.get("cron"), "cron"),
            _span(plain.get("window_us"), "window_us"),
        ),
        assume_chain=_chain(plain.get("assume_chain")),
        phase=Phase(phase),
        generation=generation,
        due_us=due_us,
        last_check_us=last_check_us,
        attempts=attempts,
        sealed=sealed,
        fresh_sealed=fresh_sealed,
        **kept,
    )


@lru_cache(maxsize=1000)
def _schedule(period: timedelta | None, cron: str, window: timedelta | None) -> Schedule:
    """Return a valid schedule; the result of the check is cached, as every read of a row needs it."""
    schedule = Schedule(period, cron, window)
    problems = schedule_violations(schedule)
    if problems:
        raise Malformed(f"{problems[0].field} is not a valid schedule")
    return schedule


def _chain(plain: object) -> tuple[Hop, ...]:
    if not isinstance(plain, list):
        raise Malformed("assume_chain is not a list")
    hops = [require_texts(hop, "assume_chain") for hop in plain]
    if any(len(hop) != len(("role_arn", "external_id")) for hop in hops):
        raise Malformed("assume_chain has an invalid hop")
    return tuple(Hop(*hop) for hop in hops)


def _span(value: object, name: str) -> timedelta | None:
    return None if value is None else rows.span(require_number(value, name, span_us))


def _subject(value: object) -> str:
    problem = text(value)
    if problem:
        return problem
    match str(value).split("/"):
        case [mount, "root"] if is_name(mount):
            return ""
        case [mount, "static-creds", name] if is_name(mount) and is_name(name):
            return ""
    return "names neither a root nor a static role"


ROTATIONS: Final = Table(
    "rotations",
    1,
    (
        Column("subject", _subject),
        Column("phase", one_of(Phase)),
        Column("generation", numbered),
        Column("due_us", instant),
        Column("late_us", instant),
        Column("attempts", count),
        Column("sealed", blob),
        Column("fresh_sealed", blob),
        Column("body", text),
    ),
    _rotation,
    place=place_rotation,
)
