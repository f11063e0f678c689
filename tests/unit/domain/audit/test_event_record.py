"""Checks which events of background work are recorded, and what a record of one says."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from lessor_server.domain import events
from lessor_server.domain.audit.event_record import event_record
from lessor_server.domain.audit.record import AuditRecord, RecordKind
from lessor_server.domain.events import Event

LEASE = "aws/creds/app/000000000000000000000000"
KINDS = [
    one
    for _, one in inspect.getmembers(events, inspect.isclass)
    if issubclass(one, Event) and one is not Event
]


def recorded(event: Event) -> AuditRecord | None:
    """Return the record of an event."""
    return event_record(event, 5, lambda value: f"hash of {value}")


def example(kind: type[Event]) -> Event:
    """Return an event with a value in each field."""
    values: dict[str, object] = {}
    for one in dataclasses.fields(kind):
        match one.type:
            case "str":
                values[one.name] = LEASE if one.name == "lease_id" else f"the {one.name}"
            case "int":
                values[one.name] = 10**6
            case "bool":
                values[one.name] = True
            case "float":
                values[one.name] = 1.5
            case _:
                values[one.name] = ("a", "b")
    return kind(**values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_any_event_can_be_written_and_has_no_text_of_aws(kind: type[Event]) -> None:
    record = recorded(example(kind))
    if record is not None:
        content = record.content()
        assert (record.kind, record.time_us) == (RecordKind.EVENT, 5)
        assert "the detail" not in str(content)
        assert "'the access_key_id'" not in str(content)


@pytest.mark.parametrize(
    "kind",
    [
        events.Expiring,
        events.Revoked,
        events.Forgotten,
        events.RevocationFailed,
        events.Stuck,
        events.Rotated,
        events.KeyRetired,
        events.RotationFailed,
        events.OrphanAdopted,
        events.Reconciled,
        events.MountRemoved,
        events.ExpiryHeld,
        events.IssueFailed,
        events.Retired,
        events.TakenOver,
        events.ReplicaSilent,
        events.Reloaded,
        events.ReloadFailed,
        events.AuditRecordsMissing,
    ],
)
def test_background_work_is_recorded(kind: type[Event]) -> None:
    assert recorded(example(kind)) is not None


@pytest.mark.parametrize("kind", [events.Issued, events.Renewed, events.Created, events.AuditSinkFailed])
def test_what_a_call_does_is_recorded_by_the_call(kind: type[Event]) -> None:
    assert recorded(example(kind)) is None


def test_an_event_names_its_lease_and_its_owner() -> None:
    record = recorded(events.Revoked(LEASE, owner="ci"))
    assert record is not None
    assert (record.event, record.lease_id, record.mount, record.role) == ("revoked", LEASE, "aws", "app")
    assert record.detail == {"owner": "ci"}


def test_a_rotation_names_who_asked_and_hides_the_key() -> None:
    record = recorded(events.Rotated("aws/root", "AKIA1", "the clock"))
    assert record is not None
    assert (record.identity, record.access_key_hmac) == ("the clock", "hash of AKIA1")
    assert record.detail == {"subject": "aws/root"}


def test_an_instant_is_a_time() -> None:
    record = recorded(events.Retired(LEASE, 1_700_000_000_000_000, owner=""))
    assert record is not None
    assert record.detail == {"expires": "2023-11-14T22:13:20.000000Z"}
