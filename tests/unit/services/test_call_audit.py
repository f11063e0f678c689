"""Checks which records a call writes, in which order, and what happens without audit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from lessor_server.domain.access.caller import ROOT, Credential, Peer
from lessor_server.domain.audit.record import AuditRecord, RecordKind
from lessor_server.domain.errors.access import AuditUnavailable, NotYourLease
from lessor_server.domain.errors.base import AwsAnswer, AwsUnavailable
from lessor_server.services import effects, permissions
from lessor_server.services.audit import UNAUTHENTICATED_RECORDS
from lessor_server.services.effects import EFFECTS, Effect, effect_of
from lessor_server.services.guard import CallRefusal, Guard
from lessor_server.services.permissions import PERMISSIONS
from tests.support.access import FixedAccess, principal
from tests.support.audited_guard import (
    DESCRIPTORS,
    GENERATE,
    LEASE,
    Bench,
    Exchange,
    Service,
    credential,
    example,
)
from tests.support.call_notes import CallNotes
from tests.support.virtual_loop import virtual

READER = principal("reader", "read aws/creds/app", "deny aws/creds/closed")


OF = {effect: sorted(name for name, one in EFFECTS.items() if one is effect) for effect in Effect}


def test_every_method_that_needs_a_caller_has_an_effect() -> None:
    assert set(EFFECTS) == set(PERMISSIONS)


@virtual
async def test_a_method_without_an_effect_stops_the_start() -> None:
    """Otherwise a new method would not be audited."""
    known = dict(EFFECTS)
    guard = Guard(FixedAccess({}), CallNotes(), lambda: 0.0)
    effects_now: Any = EFFECTS
    try:
        del effects_now["SystemService.Backup"]
        with pytest.raises(LookupError, match="Backup has no effect"):
            guard.methods(DESCRIPTORS[-1], object())
    finally:
        effects_now.clear()
        effects_now.update(known)


def test_a_reconcile_run_that_only_looks_is_a_read() -> None:
    for apply, effect in ((False, Effect.READ), (True, Effect.CHANGE)):
        assert effect_of("LeaseService.Reconcile", lease_pb2.ReconcileRequest(apply=apply)) is effect
    assert effects.READ is Effect.READ


@pytest.mark.parametrize("method", OF[Effect.CHANGE] + OF[Effect.REVOKE])
@virtual
async def test_an_effect_is_recorded_before_it_and_before_the_answer(method: str) -> None:
    bench = Bench()
    outcome = await bench.call(method, example(method))
    assert not isinstance(outcome.answer, CallRefusal), outcome.error
    assert bench.audit.journal == ["request", "effect", "response"]
    request, response = bench.audit.written
    assert request.request == response.request == outcome.exchange.request_id == "id-1"
    assert (request.status, response.status) == ("", "OK")
    assert request.rpc == response.rpc == method
    assert {one.decision for one in bench.audit.written} == {"allowed"}


@pytest.mark.parametrize("method", OF[Effect.READ] + OF[Effect.READ_ROOT])
@virtual
async def test_a_read_is_recorded_once(method: str) -> None:
    bench = Bench()
    await bench.call(method, example(method))
    (record,) = bench.audit.records
    assert record.rpc == method
    lasts = method in permissions.UNBOUNDED_STREAMS
    assert bench.audit.journal == (["request", "effect"] if lasts else ["effect", "response"])


@pytest.mark.parametrize("method", OF[Effect.CHANGE] + OF[Effect.READ_ROOT])
@virtual
async def test_without_audit_nothing_is_done(method: str) -> None:
    bench = Bench()
    bench.audit.works = False
    outcome = await bench.call(method, example(method))
    assert (outcome.error.reason, outcome.error.retry_in) == ("AUDIT_UNAVAILABLE", 1.0)
    assert "effect" not in bench.audit.journal
    (record,) = bench.audit.noted
    assert (record.status, record.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")


@pytest.mark.parametrize("method", OF[Effect.CHANGE])
@virtual
async def test_a_sink_that_fails_with_the_first_record_prevents_the_effect(method: str) -> None:
    """The log thought that it works until this record."""
    bench = Bench()

    def fail(_: AuditRecord) -> None:
        bench.audit.works = False

    bench.audit.before_write = fail
    assert (await bench.call(method, example(method))).error.reason == "AUDIT_UNAVAILABLE"
    assert "effect" not in bench.audit.journal


@pytest.mark.parametrize("method", OF[Effect.REVOKE] + OF[Effect.READ])
@virtual
async def test_revocations_and_reads_go_on_without_audit(method: str) -> None:
    """Their records wait in memory."""
    bench = Bench()
    bench.audit.works = False
    outcome = await bench.call(method, example(method))
    assert not isinstance(outcome.answer, CallRefusal)
    assert "effect" in bench.audit.journal
    kinds = [one.kind for one in bench.audit.noted]
    two = EFFECTS[method] is Effect.REVOKE
    lasts = method in permissions.UNBOUNDED_STREAMS
    expected = [RecordKind.REQUEST, RecordKind.RESPONSE] if two else [RecordKind.RESPONSE]
    assert kinds == ([RecordKind.REQUEST] if lasts else expected)


@virtual
async def test_without_audit_only_records_of_effects_have_places_that_no_other_record_takes() -> None:
    """Neither reads nor refusals of any kind displace a revocation's."""
    bench = Bench(READER)
    bench.audit.works = False
    for method in (*OF[Effect.CHANGE], *OF[Effect.READ], *OF[Effect.READ_ROOT]):
        await bench.call(method, example(method))
    await bench.generate("nobody")
    await bench.call("LeaseService.RevokePrefix", example("LeaseService.RevokePrefix"), "reader")
    assert bench.audit.noted
    assert bench.audit.noted_effects == []
    for method in OF[Effect.REVOKE]:
        await bench.call(method, example(method))
    assert len(bench.audit.noted_effects) == 2 * len(OF[Effect.REVOKE])


@pytest.mark.parametrize("method", OF[Effect.REVOKE])
@virtual
async def test_a_stuck_sink_delays_a_revocation_for_a_moment_only(method: str) -> None:
    bench = Bench()
    bench.audit.may_write.clear()
    began = asyncio.get_running_loop().time()
    outcome = await bench.call(method, example(method))
    assert not isinstance(outcome.answer, CallRefusal)
    assert asyncio.get_running_loop().time() - began <= 1.0


@virtual
async def test_a_key_whose_record_cannot_be_written_is_revoked_and_not_handed_out() -> None:
    bench = Bench()
    bench.service.answers["GenerateCredentials"] = credential()

    def fail(record: AuditRecord) -> None:
        bench.audit.works = record.kind is RecordKind.REQUEST

    bench.audit.before_write = fail
    outcome = await bench.generate()
    assert outcome.error.reason == "AUDIT_UNAVAILABLE"
    assert bench.withdrawn == [LEASE]
    assert bench.audit.noted[-1].reason == "AUDIT_UNAVAILABLE"


@virtual
async def test_a_caller_that_leaves_while_its_key_is_recorded_loses_the_lease() -> None:
    bench = Bench()
    bench.service.answers["GenerateCredentials"] = credential()

    def block(record: AuditRecord) -> None:
        if record.kind is RecordKind.RESPONSE:
            bench.audit.may_write.clear()

    bench.audit.before_write = block
    task = asyncio.get_running_loop().create_task(bench.generate())
    while bench.audit.may_write.is_set():  # noqa: ASYNC110 - until the answer's record is written
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.withdrawn == [LEASE]
    assert bench.audit.noted[-1].status == "CANCELLED"


@virtual
async def test_a_deadline_that_passes_while_a_key_is_recorded_ends_the_lease() -> None:
    bench = Bench()
    bench.service.answers["GenerateCredentials"] = credential()

    def block(record: AuditRecord) -> None:
        if record.kind is RecordKind.RESPONSE and record.status == "OK":
            bench.audit.may_write.clear()

    bench.audit.before_write = block
    exchange = Exchange("root", GENERATE.SerializeToString())
    exchange.seconds = 3.0
    answer = await bench.guard.serve(bench.methods["CredsService.GenerateCredentials"], exchange)
    assert isinstance(answer, CallRefusal)
    assert answer.error.reason == "DEADLINE_EXCEEDED"
    assert bench.withdrawn == [LEASE]


@virtual
async def test_a_stream_records_each_credential_before_it_leaves() -> None:
    bench = Bench()
    bench.service.streamed = [
        creds_pb2.WatchCredentialsResponse.FromString(credential(number).SerializeToString())
        for number in range(3)
    ]
    outcome = await bench.call("CredsService.WatchCredentials", creds_pb2.WatchCredentialsRequest(role="app"))
    assert len(outcome.exchange.written) == 3
    assert bench.audit.journal == ["request", "effect", *("response", "sent") * 3, "response"]
    responses = [one for one in bench.audit.written if one.kind is RecordKind.RESPONSE]
    assert [one.lease_id for one in responses] == [LEASE[:-1] + str(n) for n in range(3)] + [""]
    assert len({one.request for one in bench.audit.written}) == 1


@virtual
async def test_a_stream_hands_nothing_out_that_is_not_recorded() -> None:
    bench = Bench()
    message = creds_pb2.WatchCredentialsResponse.FromString(credential().SerializeToString())
    bench.service.streamed = [message, message]

    def fail(_: AuditRecord) -> None:
        bench.audit.works = len(bench.audit.written) < 2

    bench.audit.before_write = fail
    outcome = await bench.call("CredsService.WatchCredentials", creds_pb2.WatchCredentialsRequest(role="app"))
    assert outcome.error.reason == "AUDIT_UNAVAILABLE"
    assert len(outcome.exchange.written) == 1
    assert bench.withdrawn == [LEASE]


@virtual
async def test_a_stream_issues_nothing_more_without_audit() -> None:
    """A stream asks this before each issue."""
    bench = Bench()
    await bench.call("CredsService.WatchCredentials", creds_pb2.WatchCredentialsRequest(role="app"))
    bench.service.callers[0].require_audit()
    bench.audit.works = False
    with pytest.raises(AuditUnavailable):
        bench.service.callers[0].require_audit()


@virtual
async def test_the_record_of_an_issue_has_all_fields_and_no_secret() -> None:
    bench = Bench(READER)
    bench.service.answers["GenerateCredentials"] = credential()
    outcome = await bench.generate("reader")
    request, response = bench.audit.written
    assert (response.identity, response.auth_method, response.peer) == ("reader", "token", "ipv4:10.0.0.1:5")
    assert (response.path, response.capability, response.rule) == (
        "aws/creds/app",
        "read",
        "aws/creds/app",
    )
    assert (response.mount, response.role, response.lease_id) == ("aws", "app", LEASE)
    assert response.access_key_hmac == "hash of AKIA1"
    assert response.aws_request_ids == ("aws-1",)
    assert response.duration_ms == 0
    assert response.content()["caller_reason"] == "deploy\\n42"
    assert (request.lease_id, request.access_key_hmac, request.duration_ms) == ("", "", None)
    assert outcome.exchange.request_id == request.request
    for record in bench.audit.written:
        shown = str(record.content())
        assert not any(secret in shown for secret in ("s3cret", "t0ken"))


@virtual
async def test_a_policy_document_is_recorded_as_its_digest() -> None:
    bench = Bench()
    for marker in ("one", "two", "one"):
        role = role_pb2.Role(name="app")
        role.policy_document.update({"Statement": [{"Sid": marker}]})
        await bench.call("RoleService.PutRole", role_pb2.PutRoleRequest(role=role))
        asked = creds_pb2.GenerateCredentialsRequest(role="app")
        asked.session_policy.update({"Statement": [{"Sid": marker}]})
        await bench.generate(request=asked)
    digests = [one.policy_sha256 for one in bench.audit.written if one.kind is RecordKind.REQUEST]
    assert [len(one) for one in digests] == [64] * 6
    assert len(set(digests)) == 2
    assert not any("Sid" in str(one.content()) for one in bench.audit.written)


@pytest.mark.parametrize(("role", "rule"), [("other", ""), ("closed", "aws/creds/closed")])
@virtual
async def test_a_refused_call_is_recorded(role: str, rule: str) -> None:
    bench = Bench(READER)
    outcome = await bench.generate("reader", creds_pb2.GenerateCredentialsRequest(role=role))
    (record,) = bench.audit.noted
    assert (record.decision, record.status, record.reason) == (
        "denied",
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
    )
    assert (record.path, record.capability) == (f"aws/creds/{role}", "read")
    assert outcome.exchange.request_id == record.request
    assert "effect" not in bench.audit.journal


@virtual
async def test_the_missing_one_of_two_needs_is_recorded() -> None:
    caller = principal("half", "delete,sudo sys/mounts/aws")
    bench = Bench(caller)
    await bench.call("ConfigService.DisableMount", config_pb2.DisableMountRequest(force=True), "half")
    (record,) = bench.audit.noted
    assert (record.path, record.capability) == ("sys/leases/revoke-force/aws/", "update,sudo")


@virtual
async def test_another_owners_lease_is_recorded_as_denied() -> None:
    bench = Bench(READER)
    bench.service.error = NotYourLease("not yours")
    await bench.call("LeaseService.LookupLease", lease_pb2.LookupLeaseRequest(lease_id=LEASE), "reader")
    (record,) = bench.audit.records
    assert (record.decision, record.reason, record.lease_id) == ("denied", "NOT_YOUR_LEASE", LEASE)


@virtual
async def test_a_failed_effect_is_recorded_with_awss_request_ids() -> None:
    bench = Bench()
    bench.service.error = failure = AwsUnavailable("away")
    failure.aws = AwsAnswer("CreateUser", "Throttling", "text of AWS", "aws-2")
    await bench.generate()
    _, response = bench.audit.written
    assert (response.status, response.reason) == ("UNAVAILABLE", "AWS_UNAVAILABLE")
    assert response.aws_request_ids == ("aws-1", "aws-2")
    assert "text of AWS" not in str(response.content())


@virtual
async def test_an_unexpected_exception_is_recorded_without_its_text() -> None:
    bench = Bench()
    bench.service.error = RuntimeError("password=hunter2")
    await bench.generate()
    assert bench.audit.written[-1].status == "INTERNAL"
    assert not any("hunter2" in str(one.content()) for one in bench.audit.records)


@pytest.mark.parametrize(
    "data", [b"\xff\xff", creds_pb2.GenerateCredentialsRequest(role="../x").SerializeToString()]
)
@virtual
async def test_a_malformed_request_is_recorded(data: bytes) -> None:
    bench = Bench(READER)
    await bench.guard.serve(bench.methods["CredsService.GenerateCredentials"], Exchange("reader", data))
    (record,) = bench.audit.noted
    assert (record.status, record.decision) == ("INVALID_ARGUMENT", "")


@virtual
async def test_a_flood_of_unknown_callers_does_not_fill_the_disk() -> None:
    """Ten records a second, and one with the number of all others."""
    bench = Bench()
    method = bench.methods["CredsService.GenerateCredentials"]
    exchanges = [Exchange("wrong", b"") for _ in range(500)]
    for number, exchange in enumerate(exchanges):
        exchange.credential = Credential(Peer(f"ipv4:10.0.0.1:{number}"), ("Bearer wrong",))
    async with asyncio.TaskGroup() as group:
        for exchange in exchanges:
            group.create_task(bench.guard.serve(method, exchange))
        await asyncio.sleep(0.5)
        assert len(bench.audit.noted) == UNAUTHENTICATED_RECORDS
    await asyncio.sleep(2)
    counted = [one for one in bench.audit.noted if one.count]
    assert len(bench.audit.noted) - len(counted) + sum(one.count for one in counted) == 500
    assert len(bench.audit.noted) <= 11 * 3
    assert {one.decision for one in bench.audit.noted} == {"unauthenticated"}
    assert not any("wrong" in str(one.content()) for one in bench.audit.noted)


@virtual
async def test_seconds_without_unknown_callers_write_nothing() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.generate("wrong")
        await asyncio.sleep(2)
    assert [one.count for one in bench.audit.noted] == [0, 0, 0]


@virtual
async def test_without_an_audit_log_calls_are_served_as_before() -> None:
    guard = Guard(FixedAccess({"root": ROOT}), CallNotes(), lambda: 0.0)
    service = Service([])
    methods = dict(guard.methods(DESCRIPTORS[2], service))
    answer = await guard.serve(methods["GenerateCredentials"], Exchange("root", GENERATE.SerializeToString()))
    assert isinstance(answer, creds_pb2.GenerateCredentialsResponse)
