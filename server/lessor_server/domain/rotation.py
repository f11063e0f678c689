"""The state machine of access key rotation, for a mount's root or a static role's user.

    IDLE ──intend──▶ INTENDED ──make──▶ MADE ──switch──▶ RETIRING ──retire──▶ IDLE
                        │                │ └──switch──▶ IDLE (two keys live on)
                        └──cancel──▶ IDLE └──drop──▶ DROPPING ──dropped──▶ IDLE

The intent, with the key ids that AWS listed before it, is durable before CreateAccessKey is sent, and the new
key before it is verified. Only a verified key is switched to. So after a crash at any moment, a key whose
secret is lost differs from all others, and is deleted. A CreateAccessKey of unknown fate can take effect
while its signature is valid: ``last_check_us`` is when the last check for its key is due. Rotations
may begin before. Instants are microseconds since the epoch (``…_us``).

The row of a deleted static role is ``ending``, in phase IDLE and without secrets, until its keys are deleted
on AWS and no other can appear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Final

from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.lease import CREATE_GRACE
from lessor_server.domain.root import Hop
from lessor_server.domain.schedule import NEVER, Schedule

LATE_US: Final = (CREATE_GRACE + timedelta(minutes=1)) // MICROSECOND
"""After this time an earlier CreateAccessKey can no longer take effect, and a listing shows its key."""

DEACTIVATE_US: Final = 2_000_000
"""How long an old root key stays active, for calls in flight."""

RETIRE_US: Final = 60_000_000
"""How long an old root key stays, inactive, before it is deleted."""

CLAIM_US: Final = 180_000_000
"""Longer than one attempt: a minute of verification, and the calls around it."""

REMEMBERED: Final = 20
"""The number of ids of rotated-away keys that are kept."""


class Phase(Enum):
    """The phase of a rotation."""

    IDLE = "IDLE"
    INTENDED = "INTENDED"
    MADE = "MADE"
    DROPPING = "DROPPING"
    RETIRING = "RETIRING"


class RotationStep(Enum):
    """One named change of phase."""

    INTEND = "intend"
    CANCEL = "cancel"
    MAKE = "make"
    SWITCH = "switch"
    DROP = "drop"
    DROPPED = "dropped"
    RETIRE = "retire"


STEPS: Final[dict[RotationStep, tuple[Phase, tuple[Phase, ...]]]] = {
    RotationStep.INTEND: (Phase.IDLE, (Phase.INTENDED,)),
    RotationStep.CANCEL: (Phase.INTENDED, (Phase.IDLE,)),
    RotationStep.MAKE: (Phase.INTENDED, (Phase.MADE,)),
    RotationStep.SWITCH: (Phase.MADE, (Phase.RETIRING, Phase.IDLE)),
    RotationStep.DROP: (Phase.MADE, (Phase.DROPPING,)),
    RotationStep.DROPPED: (Phase.DROPPING, (Phase.IDLE,)),
    RotationStep.RETIRE: (Phase.RETIRING, (Phase.IDLE,)),
}
"""Every allowed step, with its phases before and after."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """One subject's row: ``<mount>/root`` or ``<mount>/static-creds/<name>``.

    ``due_us`` is when it is checked next, or when its claim ends; 0 is never. ``next_us`` is when the next
    rotation is due by ``schedule``, ``retire_us`` when the ``previous`` key is deleted, which may be
    ``inactive`` before. ``sealed`` is the secret of a static role's key; a root's is in its config. The
    secret of a ``fresh`` key, which is not in use yet, is sealed here for both. A ``held`` row starts no
    rotation, and its ``next_us`` is 0, so that earlier versions start none either.
    """

    subject: str
    schedule: Schedule = NEVER
    live_keys: int = 1
    assume_chain: tuple[Hop, ...] = ()
    account: str = ""
    user_name: str = ""
    user_id: str = ""
    phase: Phase = Phase.IDLE
    generation: int = 0
    current: str = ""
    sealed: bytes = b""
    previous: str = ""
    fresh: str = ""
    fresh_sealed: bytes = b""
    keys_before: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    next_us: int = 0
    due_us: int = 0
    last_check_us: int = 0
    retire_us: int = 0
    inactive: bool = False
    ending: bool = False
    held: bool = False
    attempts: int = 0
    last_error: str = ""

    @property
    def mount(self) -> str:
        """Return the mount that the subject belongs to."""
        return self.subject.partition("/")[0]

    @property
    def name(self) -> str:
        """Return the static role's name, or an empty text for a root."""
        return "" if self.is_root else self.subject.rpartition("/")[2]

    @property
    def is_root(self) -> bool:
        """Return whether it is a mount's root whose key is rotated."""
        return self.subject == root_subject(self.mount)

    @property
    def title(self) -> str:
        """Return its name for messages."""
        return f"the root of mount {self.mount}" if self.is_root else f"static role {self.mount}/{self.name}"

    @property
    def unneeded(self) -> str:
        """Return the key that must be deleted, whether it was in use or not; empty if there is none."""
        if self.ending:
            return next(iter(self.made_keys), "")
        return self.fresh or (self.previous if self.phase is Phase.RETIRING else "")

    @property
    def fresh_version(self) -> str:
        """Return the version that ``fresh_sealed`` is sealed with: the key that it is the secret of."""
        return self.fresh or self.current

    def scheduled_us(self, now_us: int) -> int:
        """Return when the next rotation is due, counted from now; 0 while the row is held."""
        return 0 if self.held else self.schedule.next_us(now_us)

    @property
    def made_keys(self) -> tuple[str, ...]:
        """Return the existing keys of a static role's user that its rotations created."""
        return tuple(filter(None, (self.fresh, self.previous, self.current)))

    def lost(self, listed: tuple[str, ...]) -> tuple[str, ...]:
        """Return the listed keys that only our attempts can have created, and whose secrets are lost."""
        known = {*self.keys_before, *self.away, self.current, self.previous, self.fresh}
        return tuple(key_id for key_id in listed if key_id not in known)

    def is_due(self, now_us: int) -> bool:
        """Return whether the next rotation is due by the schedule."""
        return 0 < self.next_us <= now_us

    def idle_due_us(self) -> int:
        """Return when an unclaimed row without a failure is due."""
        if self.ending:
            return self.last_check_us if self.last_check_us and not self.made_keys else 1
        match self.phase:
            case Phase.IDLE:
                return min((us for us in (self.next_us, self.last_check_us) if us), default=0)
            case Phase.RETIRING:
                waits = self.is_root and not self.inactive
                return max(self.retire_us - (RETIRE_US - DEACTIVATE_US if waits else 0), 1)
            case _:
                return 1


def root_subject(mount: str) -> str:
    """Return the subject of a mount's root."""
    return f"{mount}/root"


def static_subject(mount: str, name: str) -> str:
    """Return the subject of a static role."""
    return f"{static_prefix(mount)}{name}"


def static_prefix(mount: str) -> str:
    """Return the prefix of the subjects of a mount's static roles."""
    return f"{mount}/static-creds/"


def key_context(subject: str) -> str:
    """Return the context for sealing a subject's keys."""
    return f"rotations/{subject}"


# --- the steps ------------------------------------------------------------------------------------------


def intend(rotation: Rotation, listed: tuple[str, ...]) -> Rotation:
    """Return the row with the intent, which must be durable before CreateAccessKey is sent."""
    return _step(rotation, RotationStep.INTEND, Phase.INTENDED, keys_before=listed)


def cancel(rotation: Rotation) -> Rotation:
    """Return the row after AWS refused to create a key."""
    return _step(rotation, RotationStep.CANCEL, Phase.IDLE)


def make(rotation: Rotation, key_id: str, sealed: bytes) -> Rotation:
    """Return the row with the new key, which is not in use until it is verified."""
    return _step(rotation, RotationStep.MAKE, Phase.MADE, fresh=key_id, fresh_sealed=sealed)


def switch(rotation: Rotation, next_us: int, now_us: int) -> Rotation:
    """Return the row in which the new key is the current one, and the old one retires.

    A root's old key is kept for a minute; a static role's is deleted immediately, or if it has two live keys
    at the next rotation.
    """
    old = rotation.current
    retires = bool(old) and rotation.live_keys == 1
    away = (*rotation.away, *((old,) if old and rotation.is_root else ()))
    return _step(
        rotation,
        RotationStep.SWITCH,
        Phase.RETIRING if retires else Phase.IDLE,
        current=rotation.fresh,
        sealed=b"" if rotation.is_root else rotation.fresh_sealed,
        previous=old,
        fresh="",
        fresh_sealed=rotation.fresh_sealed if rotation.is_root and retires else b"",
        away=away[-REMEMBERED:],
        retire_us=now_us + (RETIRE_US if rotation.is_root else 0) if retires else 0,
        inactive=False,
        next_us=next_us,
        attempts=0,
        last_error="",
    )


def drop(rotation: Rotation) -> Rotation:
    """Return the row in which the new key must be deleted and is never verified again."""
    return _step(rotation, RotationStep.DROP, Phase.DROPPING)


def dropped(rotation: Rotation) -> Rotation:
    """Return the row once the new key is deleted."""
    return _step(rotation, RotationStep.DROPPED, Phase.IDLE, fresh="", fresh_sealed=b"")


def retire(rotation: Rotation) -> Rotation:
    """Return the row after the old key was deleted, in any phase that allows it."""
    gone = replace(rotation, previous="", retire_us=0)
    if rotation.phase is Phase.IDLE:
        return gone
    return _step(gone, RotationStep.RETIRE, Phase.IDLE, fresh_sealed=b"", attempts=0, last_error="")


def end(rotation: Rotation, now_us: int, *, keep_key: bool) -> Rotation:
    """Return the row of a deleted static role, whose keys must be deleted, except a kept current one.

    A CreateAccessKey of unknown fate may still take effect, so the row stays until that is past.
    """
    unsure = rotation.phase is Phase.INTENDED
    kept = (rotation.current,) if keep_key and rotation.current else ()
    return replace(
        rotation,
        phase=Phase.IDLE,
        ending=True,
        current="" if keep_key else rotation.current,
        keys_before=(*rotation.keys_before, *kept),
        sealed=b"",
        fresh_sealed=b"",
        next_us=0,
        last_check_us=now_us + LATE_US if unsure else rotation.last_check_us,
        retire_us=0,
        attempts=0,
        last_error="",
    )


def key_deleted(rotation: Rotation, key_id: str) -> Rotation:
    """Return the row of a deleted static role without a key that is deleted on AWS."""
    fresh, previous, current = (
        "" if one == key_id else one for one in (rotation.fresh, rotation.previous, rotation.current)
    )
    before = (*rotation.keys_before, key_id)
    return replace(rotation, fresh=fresh, previous=previous, current=current, keys_before=before)


def _step(rotation: Rotation, step: RotationStep, after: Phase, **changes: object) -> Rotation:
    before, allowed = STEPS[step]
    if rotation.phase is not before or after not in allowed:
        raise AssertionError(f"{step.value} is not a step from {rotation.phase.value} to {after.value}")
    return replace(rotation, phase=after, **changes)  # type: ignore[arg-type]
