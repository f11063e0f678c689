"""Rows to values and back; no row leaves the store.

A lease's columns that its revocation does not need have a spare value, so that one that is damaged there is
revoked all the same: what a spare value leaves out is found on AWS.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from lessor_server.adapters.sql.columns import (
    Column,
    Malformed,
    Row,
    Table,
    anything,
    blob,
    count,
    flag,
    instant,
    numbered,
    one_of,
    or_none,
    past,
    read_json,
    read_texts,
    require_number,
    require_text,
    require_texts,
    span_us,
    text,
    texts,
    ttl_us,
)
from lessor_server.adapters.sql.row_macs import RowMacs, place_mount, place_role, place_root
from lessor_server.adapters.sql.statements import LEASE_COLUMNS
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import RowUnreadable
from lessor_server.domain.lease import Footprint, Intent, Lease, Request, State
from lessor_server.domain.lease_id import IdRange, is_lease_id, is_name
from lessor_server.domain.mount import Mount, MountState
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import StoredRoot
from lessor_server.engine.store_types import BulkRevocation, LeaseCount

Params = dict[str, str | int | float | bytes | None]

_AFTER_ALL = "\x7f"
"""Is greater than every id: those are printable ASCII."""
_STATES = {state.value: state for state in State}
_TYPES = {kind.value: kind for kind in CredentialType}
_SPANS = ("default_sts_ttl", "max_sts_ttl", "default_ttl", "max_ttl", "wait_usable")
_LISTS = ("role_arns", "policy_arns", "iam_groups", "transitive_tag_keys")
_TEXTS = (
    "policy_document",
    "source_identity",
    "external_id",
    "user_path",
    "permissions_boundary_arn",
    "mfa_serial_number",
)


def us(span: timedelta) -> int:
    """Return a span in microseconds."""
    return span // MICROSECOND


def span(value: int) -> timedelta:
    """Return a span of ``value`` microseconds."""
    return timedelta(microseconds=value)


def _lease(row: Row) -> Lease:
    """Return the lease of a row with ``LEASE_COLUMNS``, each of which ``LEASES`` has checked."""
    (
        id_, mount, role, kind, owner, state, generation, due_us, account, user_name, user_path,
        inline_policy, policy_arns, groups, key_id, ttl_us, max_ttl_us, created_us, issue_us, last_renewal_us,
        expires_us, max_expires_us, attempts, not_found_count, last_error, last_create_us,
        request_id, request_digest, undelivered, reason, policy_rule, _,
    ) = row  # fmt: skip
    if kind == CredentialType.IAM_USER.value and not user_name:
        raise Malformed("user_name is empty")
    attached = read_texts(policy_arns), read_texts(groups)
    footprint = Footprint(account, user_name, user_path, inline_policy, *attached)
    return Lease(
        id=id_,
        mount=mount,
        role=role,
        credential_type=_TYPES[kind],
        owner=owner,
        state=_STATES[state],
        generation=generation,
        footprint=footprint,
        access_key_id=key_id,
        ttl=span(ttl_us),
        max_ttl=span(max_ttl_us),
        created_us=created_us,
        issue_us=issue_us,
        last_renewal_us=last_renewal_us,
        expires_us=expires_us,
        max_expires_us=max_expires_us,
        due_us=due_us,
        attempts=attempts,
        not_found_count=not_found_count,
        last_error=last_error,
        last_create_us=last_create_us,
        request=Request(request_id, request_digest) if request_id else None,
        undelivered=bool(undelivered),
        reason=reason,
        policy_rule=policy_rule,
    )


def range_params(ids: IdRange) -> Params:
    """Return the parameters of a range of ids."""
    return {"low": ids.low, "high": ids.high}


def own_params(ids: IdRange, owner: str) -> Params:
    """Return the parameters of the ids in a range of one owner's leases; the range always has an end."""
    return {"low": ids.low, "high": ids.high or _AFTER_ALL, "owner": owner}


def lease_params(lease: Lease) -> Params:
    """Return the parameters that store a lease."""
    footprint = lease.footprint
    return {
        "id": lease.id,
        "mount": lease.mount,
        "role": lease.role,
        "credential_type": lease.credential_type.value,
        "owner": lease.owner,
        "state": lease.state.value,
        "generation": lease.generation,
        "due_us": lease.due_us,
        "account": footprint.account,
        "user_name": footprint.user_name,
        "user_path": footprint.user_path,
        "inline_policy": footprint.inline_policy,
        "policy_arns": _list(footprint.policy_arns),
        "groups": _list(footprint.groups),
        "access_key_id": lease.access_key_id,
        "ttl_us": us(lease.ttl),
        "max_ttl_us": us(lease.max_ttl),
        "created_us": lease.created_us,
        "issue_us": lease.issue_us,
        "last_renewal_us": lease.last_renewal_us,
        "expires_us": lease.expires_us,
        "max_expires_us": lease.max_expires_us,
        "attempts": lease.attempts,
        "looks": lease.not_found_count,
        "last_error": lease.last_error,
        "last_create_us": lease.last_create_us,
        "request_id": lease.request.id if lease.request else "",
        "request_digest": lease.request.digest if lease.request else "",
        "untaken": lease.undelivered,
        "reason": lease.reason,
        "policy_rule": lease.policy_rule,
    }


def limit_params(intent: Intent) -> Params:
    """Return the parameters of the conditions under which a lease may begin; -1 means no limit."""
    return {
        "root_version": intent.root_version,
        "max_users": intent.max_users,
        "max_leases": intent.max_leases,
        "rule_max_leases": -1 if intent.rule_max_leases is None else intent.rule_max_leases,
    }


def _mount(row: Row) -> Mount:
    """Return the mount of a row with ``MOUNT_COLUMNS``."""
    name, description, default_us, max_us, max_users, lease_us, lease_max_us, state, created_us = row
    return Mount(
        name=name,
        description=description,
        default_lease_ttl=span(default_us),
        max_lease_ttl=span(max_us),
        max_users=max_users,
        lease=None if lease_us is None else span(lease_us),
        lease_max=None if lease_max_us is None else span(lease_max_us),
        state=MountState(state),
        created_us=created_us,
    )


def mount_params(value: Mount) -> Params:
    """Return the parameters that store a mount."""
    return {
        "name": value.name,
        "description": value.description,
        "default_lease_ttl_us": us(value.default_lease_ttl),
        "max_lease_ttl_us": us(value.max_lease_ttl),
        "max_users": value.max_users,
        "lease_us": None if value.lease is None else us(value.lease),
        "lease_max_us": None if value.lease_max is None else us(value.lease_max),
        "state": value.state.value,
        "created_us": value.created_us,
    }


def _root(row: Row) -> StoredRoot:
    """Return the sealed root of a row."""
    name, sealed, account, version, etag = row
    return StoredRoot(name, sealed, account, version, etag)


def require_storable(root: StoredRoot) -> None:
    """Raise ``RowUnreadable`` if the version is above the maximum: the row could not be read afterwards."""
    problem = numbered(root.version)
    if problem:
        raise RowUnreadable("roots", root.mount, f"version {problem}")


def _role(row: Row) -> Role:
    """Return the role of a row; members of its body that a later version wrote are ignored."""
    mount_name, name, etag, body = row
    plain = read_json(body, dict)
    values: dict[str, Any] = {field: require_texts(plain.get(field, []), field) for field in _LISTS}
    values |= {field: require_text(plain.get(field, ""), field) for field in _TEXTS}
    values |= {field: _span_or_none(plain.get(field), field) for field in _SPANS}
    if values["policy_document"]:
        read_json(values["policy_document"], dict)
    kind = require_text(plain.get("credential_type"), "credential_type")
    if kind not in _TYPES:
        raise Malformed("credential_type is not known")
    return Role(
        mount=mount_name,
        name=name,
        etag=etag,
        credential_type=_TYPES[kind],
        iam_tags=_tags(plain.get("iam_tags", {}), "iam_tags"),
        session_tags=_tags(plain.get("session_tags", {}), "session_tags"),
        max_leases=require_number(plain.get("max_leases", 0), "max_leases", count),
        **values,
    )


def role_params(value: Role) -> Params:
    """Return the parameters that store a role."""
    body: dict[str, object] = {
        "credential_type": value.credential_type.value,
        "iam_tags": dict(value.iam_tags),
        "session_tags": dict(value.session_tags),
        "max_leases": value.max_leases,
    }
    for field in (*_LISTS, *_TEXTS):
        body[field] = getattr(value, field)
    for field in _SPANS:
        stored: timedelta | None = getattr(value, field)
        body[field] = None if stored is None else us(stored)
    return {"mount": value.mount, "name": value.name, "etag": value.etag, "body": json.dumps(body)}


def _tags(plain: object, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(plain, dict):
        raise Malformed(f"{name} is not an object")
    pairs = ((require_text(key, name), require_text(value, name)) for key, value in plain.items())
    return tuple(sorted(pairs))


def _span_or_none(value: object, name: str) -> timedelta | None:
    return None if value is None else span(require_number(value, name, span_us))


def _list(values: tuple[str, ...]) -> str:
    return json.dumps(values) if values else "[]"


def _prefix(row: Row) -> BulkRevocation:
    low, high, cutoff_us, owner = row
    return BulkRevocation(IdRange(low, high), cutoff_us, owner)


def _count(row: Row) -> LeaseCount:
    mount_name, role_name, state, n = row
    return LeaseCount(mount_name, role_name, _STATES[state], n)


def _name(value: object) -> str:
    return text(value) or ("" if is_name(str(value)) else "is not a valid name")


LEASES: Final = Table(
    "leases",
    1,
    (
        Column("id", text),
        Column("mount", text),
        Column("role", text, spare=""),
        Column("credential_type", one_of(CredentialType), spare=CredentialType.IAM_USER.value),
        Column("owner", text, spare=""),
        Column("state", one_of(State)),
        Column("generation", numbered),
        Column("due_us", instant, spare=0),
        Column("account", text),
        Column("user_name", text),
        Column("user_path", text, spare="/"),
        Column("inline_policy", text, spare=""),
        Column("policy_arns", texts, spare="[]"),
        Column("groups", texts, spare="[]"),
        Column("access_key_id", text, spare=""),
        Column("ttl_us", ttl_us, spare=0),
        Column("max_ttl_us", ttl_us, spare=0),
        Column("created_us", past, spare=0),
        Column("issue_us", past, spare=0),
        Column("last_renewal_us", past, spare=0),
        Column("expires_us", instant, spare=0),
        Column("max_expires_us", instant, spare=0),
        Column("attempts", count, spare=0),
        Column("looks", count, spare=0),
        Column("last_error", text, spare=""),
        Column("last_create_us", instant, spare=0),
        Column("request_id", text, spare=""),
        Column("request_digest", text, spare=""),
        Column("untaken", flag, spare=0),
        Column("reason", text, spare=""),
        Column("policy_rule", text, spare=""),
        Column("mac", anything),
    ),
    _lease,
    lambda lease: "" if is_lease_id(lease.id) else "id is not a valid lease id",
    is_authentic=RowMacs.is_lease_authentic,
    mark=lambda lease: replace(lease, tampered=True),
)
MOUNTS: Final = Table(
    "mounts",
    1,
    (
        Column("name", _name),
        Column("description", text, spare=""),
        Column("default_lease_ttl_us", span_us, spare=0),
        Column("max_lease_ttl_us", span_us, spare=0),
        Column("max_users", count, spare=0),
        Column("lease_us", or_none(span_us), spare=None),
        Column("lease_max_us", or_none(span_us), spare=None),
        Column("state", one_of(MountState)),
        Column("created_us", past, spare=0),
    ),
    _mount,
    place=place_mount,
).remember(256)
ROOTS: Final = Table(
    "roots",
    1,
    (
        Column("mount", _name),
        Column("sealed", blob),
        Column("account", text),
        Column("version", numbered),
        Column("etag", text),
    ),
    _root,
    place=place_root,
).remember(256)
ROLES: Final = Table(
    "roles",
    2,
    (Column("mount", _name), Column("name", _name), Column("etag", text), Column("body", text)),
    _role,
    place=place_role,
).remember(256)
PREFIXES: Final = Table(
    "prefixes",
    1,
    (Column("low", text), Column("high", text), Column("cutoff_us", past), Column("owner", text)),
    _prefix,
)
GENERATION, USER_NAME = map(LEASE_COLUMNS.split(", ").index, ("generation", "user_name"))
"""The positions of these two columns in a lease's row."""
_COUNTED: Final = (
    Column("mount", text), Column("role", text), Column("state", one_of(State)), Column("n", count),
)  # fmt: skip
COUNTS: Final = Table("lease_counts", 3, _COUNTED, _count)
OWN_COUNTS: Final = Table("leases", 3, _COUNTED, _count)
"""Counts of the leases of one owner, made of their rows."""
