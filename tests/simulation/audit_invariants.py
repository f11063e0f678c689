"""Invariants of the audit, checked with those of ``invariants.py``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lessor_server.domain.audit.record import RecordKind
from lessor_server.domain.lease import State
from tests.simulation.audit_trail import Unrecorded, hashed
from tests.simulation.invariants import Found
from tests.simulation.journal import suffix

if TYPE_CHECKING:
    from tests.simulation.expectations import Answered, Effect
    from tests.simulation.world import World

ISSUE = "CredsService.GenerateCredentials"
MAKING = ("CreateUser", "AssumeRole", "GetFederationToken", "GetSessionToken")


def each_credential_is_recorded(world: World, asked: Answered) -> Found:
    """A credential is handed out only after the record of its answer was written."""
    if asked.method != "GenerateCredentials":
        return None
    answer = asked.answer
    wanted = (answer.lease_id, hashed(answer.access_key), "OK")
    if any((one.lease_id, one.access_key_hmac, one.status) == wanted for one in reversed(world.records)):
        return None
    return suffix(answer.lease_id), "its key was handed out without a record"


def each_effect_is_recorded_before(world: World, effect: Effect) -> Found:
    """Nothing is made on AWS for a caller before the record of its request was written."""
    record = world.expectations.records.get(effect.subject)
    if effect.call.action not in MAKING or record is None:
        return None
    for one in world.records:
        if (one.kind, one.rpc, one.identity) == (RecordKind.REQUEST, ISSUE, record.owner):
            return None
    return effect.subject, f"{effect.call.action} for {record.owner} without the record of a request"


def unrecorded_credentials_are_revoked(world: World, unrecorded: Unrecorded) -> Found:
    """A lease whose credential could not be recorded is revoked, unless something else is amiss since."""
    row = world.store.rows.get(unrecorded.lease_id)
    disturbed = world.expectations.disturbances > unrecorded.disturbances
    asleep = world.responsibilities.somebody_since == math.inf
    if row is None or disturbed or asleep or row.lease.state is not State.ACTIVE:
        return None
    return suffix(unrecorded.lease_id), "its credential was not recorded, and it is not revoked"


ON_EFFECT = (each_effect_is_recorded_before,)
ON_ANSWER = (each_credential_is_recorded,)
ON_UNRECORDED = (unrecorded_credentials_are_revoked,)
