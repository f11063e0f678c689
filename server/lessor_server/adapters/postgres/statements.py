"""The statements that PostgreSQL needs in another form than SQLite, and those that it alone has."""

from __future__ import annotations

import re
from typing import Final

from lessor_server.adapters.sql import keyring_statements as keyring_sql
from lessor_server.adapters.sql import login_statements as login_sql
from lessor_server.adapters.sql import statements as sql

_LIVE = "state IN ('INTENT', 'ACTIVE', 'REVOKING')"

LOCK_CONFIGURATION = "SELECT 1 FROM meta WHERE key = 'configuration' FOR UPDATE"
"""What each transaction that writes configuration or MACs begins with: one such runs at a time."""


def _locking(names: str) -> str:
    """Return what locks names until the commit, each by one of 64 rows; their order prevents deadlocks.

    ``DO UPDATE`` locks a row that is there, also one that it does not change.
    """
    return f"""
INSERT INTO meta (key, value)
SELECT DISTINCT 'lock/' || (hashtextextended(name, 0) & 63), '' FROM {names} AS given(name) ORDER BY 1
ON CONFLICT (key) DO UPDATE SET value = '' WHERE false
"""


LOCK_NAMES = _locking("jsonb_array_elements_text(:names::jsonb)")
"""What is counted over several mounts is locked by its name before that."""

LOCK_MOUNTS = """
SELECT 1 FROM mounts WHERE name IN (SELECT value FROM json_each(:mounts)) ORDER BY name FOR NO KEY UPDATE
"""
"""What each issue begins with: limits hold, and no bulk revocation misses a lease that is about to commit."""

LOCK_MOUNTS_OF_RANGE = """
SELECT 1 FROM mounts WHERE (name || '/') < :high AND (name || '0') > :low ORDER BY name FOR NO KEY UPDATE
"""
NEWEST_OF_RANGE = """
SELECT max(created_us) FROM leases WHERE id >= :low AND id < :high AND created_us <= :until
"""

BEGIN_COLUMNS = (
    *sql.LEASE_COLUMNS.split(", "),
    "root_version",
    "max_users",
    "max_leases",
    "rule_max_leases",
    "now",
)
_RULE_LEASES = re.sub(r":(\w+)", r"given.\1", sql.RULE_LEASES).replace(
    "LIMIT given.rule_max_leases", "LIMIT greatest(given.rule_max_leases, 0)"
)
# Each row counts those before it in the batch as if all of them were stored. What is refused for that is
# tried again alone.
BEGIN_MANY = f"""
INSERT INTO leases ({sql.LEASE_COLUMNS}, claimed_by, gone_us)
SELECT {sql.LEASE_COLUMNS}, 'issuer', 0 FROM (
    SELECT *, count(*) FILTER (WHERE user_name <> '') OVER (PARTITION BY mount ORDER BY nth) AS nth_user,
        count(*) OVER (PARTITION BY mount, role ORDER BY nth) AS nth_of_role,
        count(*) OVER (PARTITION BY owner, policy_rule ORDER BY nth) AS nth_of_rule
    FROM {{many}}) AS given
WHERE EXISTS (SELECT 1 FROM mounts WHERE name = given.mount AND mounts.state = 'enabled')
  AND EXISTS (SELECT 1 FROM roots WHERE roots.mount = given.mount AND version = given.root_version
              AND roots.account = given.account)
  AND (user_name = '' OR nth_user <= max_users -
       (SELECT coalesce(sum(users), 0) FROM lease_counts
        WHERE lease_counts.mount = given.mount AND lease_counts.{_LIVE}))
  AND (max_leases = 0 OR nth_of_role <= max_leases -
       (SELECT coalesce(sum(n), 0) FROM lease_counts
        WHERE lease_counts.mount = given.mount AND lease_counts.role = given.role AND lease_counts.{_LIVE}))
  AND (rule_max_leases < 0 OR nth_of_rule <= rule_max_leases - ({_RULE_LEASES}))
ON CONFLICT DO NOTHING
RETURNING id
"""

WRITE_COLUMNS = ("id", "before", "new_mac", "now", *sql.CHANGED_COLUMNS.split(", "))
_SET = re.sub(r"\w+", r"\g<0> = given.\g<0>", sql.CHANGED_COLUMNS)
WRITE_MANY = f"""
UPDATE leases SET {_SET}, claimed_by = '', mac = coalesce(given.new_mac, leases.mac),
    gone_us = CASE given.state WHEN 'GONE' THEN given.now ELSE 0 END
FROM {{many}} AS given
WHERE leases.id = given.id AND leases.generation = given.before
  AND (given.state <> 'ACTIVE' OR ((leases.state = 'INTENT' OR leases.expires_us > given.now)
       AND NOT EXISTS (
           SELECT 1 FROM prefixes
           WHERE low <= leases.id AND leases.id < high AND leases.created_us <= cutoff_us
             AND prefixes.owner IN ('', leases.owner))))
RETURNING leases.id
"""
GET_MANY = f"SELECT {sql.LEASE_COLUMNS} FROM leases WHERE id IN (SELECT value FROM json_each(:ids))"
ARE_CLAIMED = """
SELECT id FROM leases
WHERE id IN (SELECT value FROM json_each(:ids))
  AND state = 'REVOKING' AND claimed_by = :by AND due_us = :until
"""
COVER = "SELECT mac FROM row_macs WHERE mount = '' AND place = ''"
"""The MAC that covers all configuration: each change of that has another one."""

CLAIM_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT id AS due_id, due_us AS was_due_us FROM leases
    WHERE {_LIVE} AND due_us <= :now
      AND (user_name = '' OR account NOT IN (SELECT value FROM json_each(:without)))
      AND NOT (state = 'ACTIVE' AND {sql.EXPIRY_HELD})
    ORDER BY due_us, id LIMIT :limit FOR UPDATE SKIP LOCKED)
UPDATE leases SET state = 'REVOKING', generation = {sql.NEXT_GENERATION}, claimed_by = :by, due_us = :until
FROM due WHERE id = due_id
RETURNING was_due_us, {sql.LEASE_COLUMNS}
"""
"""A plan may run a subquery more than once, and each run locks further rows; MATERIALIZED runs it once."""

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
    """Return a change of a limited range that locks its rows, and checks again what others have changed.

    An array is computed once; a plan may run what is behind IN more than once, with further rows each time.
    """
    once = statement.replace("WHERE id IN (", "WHERE id = ANY (ARRAY(", 1)
    locked = once.replace("LIMIT :limit\n)", f"LIMIT :limit FOR UPDATE\n)) AND {_LIVE}")
    return locked.replace("min(due_us, :now)", "least(due_us, :now)")


MAX_PURGED = 5_000
"""How many tombstones one transaction deletes: the others wait for no more than that."""


def _purging(statement: str) -> str:
    """Return a purge that deletes at most ``MAX_PURGED`` rows, and passes over those that others delete."""
    where = statement.partition("WHERE ")[2].rstrip()
    rows = f"SELECT id FROM leases WHERE {where} ORDER BY gone_us LIMIT {MAX_PURGED} FOR UPDATE SKIP LOCKED"
    return f"DELETE FROM leases WHERE id = ANY (ARRAY({rows})) AND state = 'GONE'"


# Rows without data keys do not exist: there has been no version without them.
_IS_SEALED = """
SELECT EXISTS (SELECT 1 FROM row_macs) OR EXISTS (SELECT 1 FROM leases) OR EXISTS (SELECT 1 FROM mounts)
    OR EXISTS (SELECT 1 FROM roots) OR EXISTS (SELECT 1 FROM rotations)
"""

# Until the commit: two processes would each find room for one more token.
_LOCK_IDENTITY = _locking("unnest(ARRAY[:identity])")


def _skipping(statement: str) -> str:
    """Return a limited purge that passes over rows that others delete, and waits for nobody."""
    once = statement.replace("WHERE digest IN (", "WHERE digest = ANY (ARRAY(", 1)
    return once.replace("LIMIT :limit)", "LIMIT :limit FOR UPDATE SKIP LOCKED))")


REPLACED: Final[dict[str, str]] = {
    login_sql.LOCK_IDENTITY: _LOCK_IDENTITY,
    login_sql.PURGE_EXPIRED: _skipping(login_sql.PURGE_EXPIRED),
    login_sql.PURGE_ORPHANS: _skipping(login_sql.PURGE_ORPHANS),
    sql.NEWEST: _NEWEST,
    sql.RESTORE_DUE: _RESTORE_DUE,
    sql.POSTPONE_UNREADABLE: _POSTPONE_UNREADABLE,
    sql.POSTPONE_UNREADABLE_ROTATION: _POSTPONE_UNREADABLE_ROTATION,
    sql.MARK_RANGE_REVOKING: _locked(sql.MARK_RANGE_REVOKING),
    sql.by_owner(sql.MARK_RANGE_REVOKING): _locked(sql.by_owner(sql.MARK_RANGE_REVOKING)),
    sql.ABANDON: _locked(sql.ABANDON),
    sql.PURGE_TOMBSTONES: _purging(sql.PURGE_TOMBSTONES),
    sql.PURGE_SESSIONS: _purging(sql.PURGE_SESSIONS),
    keyring_sql.IS_SEALED: _IS_SEALED,
}
"""Statements of ``adapters/sql``, and what PostgreSQL runs instead."""

UNFINISHED = "unfinished_copy"
"""The key of ``meta`` that a database has while it is copied into: no server starts on it."""

PROBE = "UPDATE meta SET value = value WHERE key = 'configuration'"
"""A write that changes nothing: it shows that the database can be written to."""
PROBE_ROOM = """
INSERT INTO lease_events (number, replica, kind, lease_id, owner, at_us, error)
SELECT -1, '', '', '', '', 0, string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n
"""
"""A row of 32 KB, which is rolled back: no other row is so long, so there is hardly ever room for it."""

INCARNATION = """
SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
    || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system()
"""
"""The cluster, the database and the timeline: a restored dump or archive has another one. A standby that was
promoted has another timeline, too; servers that run meanwhile store it."""
CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
MARK = """
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.value::bigint < excluded.value::bigint
"""
"""The high-water mark of the time, which several processes raise."""
AUDIT_KEYS = "SELECT key, value FROM meta WHERE key = 'audit_hash_key' OR key LIKE 'audit\\_key/%'"
ADD_META = "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING"
