"""The statements that PostgreSQL needs in another form than SQLite, and those that it alone has."""

from __future__ import annotations

from typing import Final

from lessor_server.adapters.sql import keyring_statements as keyring_sql
from lessor_server.adapters.sql import statements as sql

_LIVE = "state IN ('INTENT', 'ACTIVE', 'REVOKING')"

LOCK_CONFIGURATION = "SELECT 1 FROM meta WHERE key = 'configuration' FOR UPDATE"
"""What each transaction that writes configuration or MACs begins with: one such runs at a time."""

LOCK_MOUNT = "SELECT 1 FROM mounts WHERE name = :mount FOR NO KEY UPDATE"
"""What each issue begins with: limits hold, and no bulk revocation misses a lease that is about to commit."""

LOCK_MOUNTS_OF_RANGE = """
SELECT 1 FROM mounts WHERE (name || '/') < :high AND (name || '0') > :low ORDER BY name FOR NO KEY UPDATE
"""
NEWEST_OF_RANGE = """
SELECT max(created_us) FROM leases WHERE id >= :low AND id < :high AND created_us <= :until
"""

CLAIM_DUE = f"""
UPDATE leases SET state = 'REVOKING', generation = {sql.NEXT_GENERATION}, claimed_by = :by, due_us = :until
FROM (SELECT id AS due_id, due_us AS was_due_us FROM leases
      WHERE {_LIVE} AND due_us <= :now
        AND (user_name = '' OR account NOT IN (SELECT value FROM json_each(:without)))
        AND NOT (state = 'ACTIVE' AND {sql.EXPIRY_HELD})
      ORDER BY due_us, id LIMIT :limit FOR UPDATE SKIP LOCKED) AS due
WHERE id = due_id
RETURNING was_due_us, {sql.LEASE_COLUMNS}
"""

CLAIM_THESE = f"""
UPDATE leases SET state = 'REVOKING', generation = {sql.NEXT_GENERATION}, claimed_by = :by, due_us = :until
FROM (SELECT id AS due_id FROM leases
      WHERE id IN (SELECT value FROM json_each(:ids)) AND {_LIVE} AND due_us <= :now
        AND NOT (state = 'ACTIVE' AND {sql.EXPIRY_HELD})
      ORDER BY id FOR UPDATE SKIP LOCKED) AS due
WHERE id = due_id
RETURNING {sql.LEASE_COLUMNS}
"""

_NEWEST = """
SELECT greatest(coalesce(max(greatest(created_us, issue_us, last_renewal_us)), 1), 1) FROM leases
WHERE greatest(created_us, issue_us, last_renewal_us) <= :max_us
"""
_RESTORE_DUE = f"""
UPDATE leases SET due_us = CASE WHEN state = 'ACTIVE' AND expires_us <= :max_us THEN expires_us ELSE :now END
WHERE {_LIVE} AND due_us > :max_us
"""
_POSTPONE_UNREADABLE_ROTATION = (
    "UPDATE rotations SET due_us = :until WHERE subject = :subject AND due_us <= :now"
)
_POSTPONE_UNREADABLE = "UPDATE leases SET due_us = :until WHERE id = :id AND due_us <= :now"


def _locked(statement: str) -> str:
    """Return a change of a limited range that locks its rows, and checks again what others have changed."""
    return statement.replace("LIMIT :limit\n)", f"LIMIT :limit FOR UPDATE\n) AND {_LIVE}").replace(
        "min(due_us, :now)", "least(due_us, :now)"
    )


# Rows without data keys do not exist: there has been no version without them.
_IS_SEALED = """
SELECT EXISTS (SELECT 1 FROM row_macs) OR EXISTS (SELECT 1 FROM leases) OR EXISTS (SELECT 1 FROM mounts)
    OR EXISTS (SELECT 1 FROM roots) OR EXISTS (SELECT 1 FROM rotations)
"""

REPLACED: Final[dict[str, str]] = {
    sql.NEWEST: _NEWEST,
    sql.RESTORE_DUE: _RESTORE_DUE,
    sql.POSTPONE_UNREADABLE: _POSTPONE_UNREADABLE,
    sql.POSTPONE_UNREADABLE_ROTATION: _POSTPONE_UNREADABLE_ROTATION,
    sql.MARK_RANGE_REVOKING: _locked(sql.MARK_RANGE_REVOKING),
    sql.by_owner(sql.MARK_RANGE_REVOKING): _locked(sql.by_owner(sql.MARK_RANGE_REVOKING)),
    sql.ABANDON: _locked(sql.ABANDON),
    keyring_sql.IS_SEALED: _IS_SEALED,
}
"""Statements of ``adapters/sql``, and what PostgreSQL runs instead."""

PROBE = "UPDATE meta SET value = value WHERE key = 'configuration'"
"""A write that changes nothing: it shows that the database can be written to."""

CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
MARK = """
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.value::bigint < excluded.value::bigint
"""
"""The high-water mark of the time, which several processes raise."""
ADD_META = "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING"
