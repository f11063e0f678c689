"""Every statement of the SQLite store, by name; what differs from another dialect says why."""

from __future__ import annotations

import re

from lessor_server.adapters.sql.columns import MAX_NUMBERED
from lessor_server.domain.backoff import MAX_COUNT

LEASE_COLUMNS = (
    "id, mount, role, credential_type, owner, state, generation, due_us, account, user_name, user_path,"
    " inline_policy, policy_arns, groups, access_key_id, ttl_us, max_ttl_us, created_us, issue_us,"
    " last_renewal_us, expires_us, max_expires_us, attempts, looks, last_error, last_create_us,"
    " request_id, request_digest, untaken, reason, policy_rule, mac"
)

# After the greatest generation comes the first one: no row becomes unreadable by a change.
NEXT_GENERATION = f"CASE generation WHEN {MAX_NUMBERED} THEN 1 ELSE generation + 1 END"

# --- the steps of a lease: those of one row that was read are WRITE_LEASE; each of the others names the
# states it starts from, as domain.lease.STEPS does -------------------------------------------------------

_INSERT_LEASE = f"INSERT INTO leases ({LEASE_COLUMNS}, claimed_by, gone_us)"
_NEW_LEASE = re.sub(r"\w+", r":\g<0>", LEASE_COLUMNS)

# At most so many rows are counted as the limit has. The last condition is the index's own: without it SQLite
# does not know that the index holds the row.
RULE_LEASES = """
SELECT count(*) FROM (
    SELECT 1 FROM leases
    WHERE owner = :owner AND policy_rule = :policy_rule AND state IN ('INTENT', 'ACTIVE', 'REVOKING')
    UNION ALL
    SELECT 1 FROM leases
    WHERE owner = :owner AND policy_rule = :policy_rule AND max_expires_us > :now
      AND state = 'GONE' AND user_name = '' AND policy_rule <> ''
    LIMIT :rule_max_leases) AS counted
"""

BEGIN = f"""
{_INSERT_LEASE}
SELECT {_NEW_LEASE}, 'issuer', 0
WHERE EXISTS (SELECT 1 FROM mounts WHERE name = :mount AND state = 'enabled')
  AND EXISTS (SELECT 1 FROM roots WHERE mount = :mount AND version = :root_version AND account = :account)
  AND (:user_name = '' OR
       (SELECT coalesce(sum(users), 0) FROM lease_counts
        WHERE mount = :mount AND state IN ('INTENT', 'ACTIVE', 'REVOKING')) < :max_users)
  AND (:max_leases = 0 OR
       (SELECT coalesce(sum(n), 0) FROM lease_counts
        WHERE mount = :mount AND role = :role AND state IN ('INTENT', 'ACTIVE', 'REVOKING')) < :max_leases)
  AND (:rule_max_leases < 0 OR ({RULE_LEASES}) < :rule_max_leases)
ON CONFLICT DO NOTHING
"""

MOUNT_STATE = "SELECT state FROM mounts WHERE name = :mount"
ROOT_IS = "SELECT 1 FROM roots WHERE mount = :mount AND version = :root_version AND account = :account"
LEASE_EXISTS = "SELECT 1 FROM leases WHERE id = :id"
MOUNT_REVOKING = """
SELECT coalesce(sum(n), 0) FROM lease_counts WHERE mount = :mount AND state = 'REVOKING'
"""
ROLE_LIVE = """
SELECT coalesce(sum(n), 0) FROM lease_counts
WHERE mount = :mount AND role = :role AND state IN ('INTENT', 'ACTIVE', 'REVOKING')
"""

# No open prefix covers the row: used where a lease would get to live, or to live longer.
_UNCOVERED = """NOT EXISTS (
    SELECT 1 FROM prefixes WHERE low <= leases.id AND leases.id < high AND leases.created_us <= cutoff_us
      AND prefixes.owner IN ('', leases.owner))"""

# The statements for all steps that ``domain.lease`` works out. A lease that is to live on must not have
# expired by the time of the commit. The claim of the row ends with its generation. SQLite writes each index
# that has a column of SET, even if no value changes: so a lease that stays ACTIVE has a statement of its own.
CHANGED_COLUMNS = (
    "state, generation, due_us, access_key_id, ttl_us, issue_us, last_renewal_us, expires_us, max_expires_us,"
    " attempts, looks, last_error, last_create_us, untaken"
)
_CHANGED = re.sub(r"\w+", r"\g<0> = :\g<0>", CHANGED_COLUMNS)
WRITE_LEASE = f"""
UPDATE leases SET {_CHANGED}, claimed_by = '', mac = coalesce(:new_mac, mac),
    gone_us = CASE :state WHEN 'GONE' THEN :now ELSE 0 END
WHERE id = :id AND generation = :before
  AND (:state <> 'ACTIVE' OR ((state = 'INTENT' OR expires_us > :now) AND {_UNCOVERED}))
"""
WRITE_ACTIVE_LEASE = f"""
UPDATE leases SET {_CHANGED.removeprefix("state = :state, ")}, mac = coalesce(:new_mac, mac)
WHERE id = :id AND generation = :before AND state = 'ACTIVE' AND expires_us > :now AND {_UNCOVERED}
"""

REVOKE = f"""
UPDATE leases SET state = 'REVOKING', generation = {NEXT_GENERATION}, claimed_by = '', due_us = :now
WHERE id = :id AND (state IN ('INTENT', 'ACTIVE', 'ABANDONED') OR (state = 'REVOKING' AND claimed_by = ''))
RETURNING {LEASE_COLUMNS}
"""

REOPEN = f"""
UPDATE leases SET state = 'REVOKING', generation = {NEXT_GENERATION}, claimed_by = '', due_us = :now,
    looks = 0, last_create_us = max(last_create_us, :last_create_us), gone_us = 0
WHERE id = :id AND state IN ('REVOKING', 'GONE')
"""

# A person's hold is the store's: it counts for every process from its commit on.
EXPIRY_HELD = "(:held OR EXISTS (SELECT 1 FROM meta WHERE key = 'held' AND value IS NOT ''))"

CLAIM = f"""
UPDATE leases SET state = 'REVOKING', generation = {NEXT_GENERATION}, claimed_by = :by, due_us = :until
WHERE id = :id AND state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now
  AND NOT (state = 'ACTIVE' AND {EXPIRY_HELD})
RETURNING {LEASE_COLUMNS}
"""

# What is due, earliest first; CLAIM then claims each. RETURNING alone would give them in the order of the
# table. The excluded accounts come as one JSON array: SQLite has no array parameters. No account is asked
# about a session.
DUE = f"""
SELECT id FROM leases
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now
  AND (user_name = '' OR account NOT IN (SELECT value FROM json_each(:without)))
  AND NOT (state = 'ACTIVE' AND {EXPIRY_HELD})
ORDER BY due_us, id LIMIT :limit
"""

# A due time that is no instant is never reached; in an index texts and blobs stand behind all numbers.
RESTORE_DUE = """
UPDATE leases SET due_us = CASE
    WHEN state = 'ACTIVE' AND typeof(expires_us) = 'integer' AND expires_us <= :max_us THEN expires_us
    ELSE :now END
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us > :max_us
"""

# With a generation that is no count nobody could hold the row: it starts again at 1.
RECOUNT = f"UPDATE leases SET generation = 1 WHERE id = :id RETURNING {LEASE_COLUMNS}"

# An id that is no text of UTF-8 cannot be given back to SQLite as what it is.
POSTPONE_UNREADABLE = """
UPDATE leases SET due_us = :until
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now AND CAST(id AS BLOB) = :id
"""

VOID_CLAIMS = f"""
UPDATE leases SET state = 'REVOKING', generation = {NEXT_GENERATION}, claimed_by = '',
    due_us = min(due_us, :now)
WHERE claimed_by <> ''
"""

# --- reading leases --------------------------------------------------------------------------------------

DUE_WITHIN = """
SELECT id, due_us FROM leases
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us > :now AND due_us <= :until
ORDER BY due_us, id LIMIT :limit
"""

GET_LEASE = f"SELECT {LEASE_COLUMNS} FROM leases WHERE id = :id"
IS_CURRENT = "SELECT 1 FROM leases WHERE id = :id AND generation = :generation"
GET_OWNER = "SELECT owner FROM leases WHERE id = :id"

LIST_LEASES = f"""
SELECT {LEASE_COLUMNS} FROM leases
WHERE id > :after AND id >= :low AND (:high = '' OR id < :high)
  AND (:state = '' OR :state =
       CASE WHEN state = 'ACTIVE' AND expires_us <= :now THEN 'REVOKING' ELSE state END)
ORDER BY id
"""

# The leases of one owner have statements of their own, which read no row of another.
_SHOWN_STATE = "CASE WHEN state = 'ACTIVE' AND expires_us <= :now THEN 'REVOKING' ELSE state END"
LIST_OF_OWNER = f"""
SELECT {LEASE_COLUMNS} FROM leases
WHERE owner = :owner AND id > :after AND id >= :low AND id < :high
  AND (:state = '' OR :state = {_SHOWN_STATE})
ORDER BY id
"""
COUNT_OF_OWNER = f"""
SELECT mount, role, {_SHOWN_STATE}, count(*) FROM leases
WHERE owner = :owner AND id >= :low AND id < :high AND (:state = '' OR :state = {_SHOWN_STATE})
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
LIVE_OWNERS = """
SELECT owner, count(*) FROM leases
WHERE owner > :after AND state IN ('INTENT', 'ACTIVE', 'REVOKING') GROUP BY owner ORDER BY owner
"""

COUNT_LEASES = "SELECT mount, role, state, n FROM lease_counts WHERE n > 0 ORDER BY mount, role, state"

# Counts are derived: what is none is counted again, once, at a start. The triggers may add to it for long.
_NO_COUNT = f"""(typeof(n) <> 'integer' OR n NOT BETWEEN 0 AND {MAX_COUNT // 2}
    OR typeof(users) <> 'integer' OR users NOT BETWEEN 0 AND n)"""
BAD_COUNTS = f"SELECT mount, role, state FROM lease_counts WHERE {_NO_COUNT}"
RECOUNT_LEASES = f"""
UPDATE lease_counts SET (n, users) = (
    SELECT count(*), count(CASE WHEN leases.user_name <> '' THEN 1 END) FROM leases
    WHERE leases.mount = lease_counts.mount AND leases.role = lease_counts.role
      AND leases.state = lease_counts.state)
WHERE {_NO_COUNT}
"""

COUNT_OVERDUE = """
SELECT mount, role, count(*) FROM leases
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now AND state = 'ACTIVE'
GROUP BY mount, role
"""

LIVE_COUNTS = "SELECT mount, role, state, n FROM lease_counts WHERE n > 0 AND state <> 'GONE'"
# The number is STUCK_AFTER, as in the index.
COUNT_STUCK = "SELECT count(*) FROM leases WHERE state = 'REVOKING' AND attempts >= 6"
OLDEST_DUE = """
SELECT min(due_us) FROM leases WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now
"""

# In pages: after an outage a great part of all leases may be overdue, and the thread has other work.
OVERDUE_PAGE = """
SELECT mount, role, due_us, id FROM leases
WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING') AND due_us <= :now AND (due_us, id) > (:due_us, :id)
  AND state = 'ACTIVE'
ORDER BY due_us, id LIMIT :limit
"""

# The last condition is the index's own: without it SQLite does not know that the index holds the row.
BY_REQUEST = f"""
SELECT {LEASE_COLUMNS} FROM leases
WHERE owner = :owner AND mount = :mount AND role = :role AND request_id = :request_id AND request_id <> ''
"""

# --- prefixes, sweeps, tombstones ------------------------------------------------------------------------

COUNT_ROLES = """
SELECT role, n FROM lease_counts WHERE mount = :mount AND state IN ('INTENT', 'ACTIVE', 'REVOKING')
"""

# In these an empty owner means every owner; by_owner makes a statement for the leases of one.
COUNT_RANGE = """
SELECT count(*) FROM leases
WHERE id >= :low AND id < :high AND created_us <= :cutoff_us AND state IN ('INTENT', 'ACTIVE', 'REVOKING')
"""

# A lease's earlier error is wiped where it is put up: until all are, nobody knows which have failed since.
PROGRESS = """
SELECT count(CASE WHEN state <> 'GONE' THEN 1 END),
    count(CASE WHEN state <> 'GONE' AND last_error <> ''
          AND NOT EXISTS (SELECT 1 FROM prefixes
                          WHERE low = :low AND cutoff_us = :cutoff_us AND owner = :owner) THEN 1 END),
    count(CASE WHEN state = 'GONE' AND gone_us > :cutoff_us THEN 1 END),
    max(id)
FROM (
    SELECT id, state, last_error, gone_us FROM leases
    WHERE id >= :low AND id < :high AND id > :after AND created_us <= :cutoff_us AND state <> 'ABANDONED'
    ORDER BY id LIMIT :limit) AS page
"""

OPEN_PREFIX = """
INSERT INTO prefixes (low, high, cutoff_us, owner) VALUES (:low, :high, :cutoff_us, :owner)
ON CONFLICT DO NOTHING
"""
OPEN_PREFIXES = "SELECT low, high, cutoff_us, owner FROM prefixes ORDER BY cutoff_us, low, owner"
CLOSE_PREFIX = "DELETE FROM prefixes WHERE low = :low AND cutoff_us = :cutoff_us AND owner = :owner"
IS_OPEN = "SELECT 1 FROM prefixes WHERE low = :low AND cutoff_us = :cutoff_us AND owner = :owner"

# A lease that backs off becomes due immediately, too; one that is being attempted keeps its claim.
_ATTEMPTED = "state = 'REVOKING' AND claimed_by <> ''"
MARK_RANGE_REVOKING = f"""
UPDATE leases SET state = 'REVOKING', last_error = '',
    generation = CASE WHEN {_ATTEMPTED} THEN generation ELSE {NEXT_GENERATION} END,
    claimed_by = CASE WHEN {_ATTEMPTED} THEN claimed_by ELSE '' END,
    due_us = CASE WHEN {_ATTEMPTED} THEN due_us ELSE min(due_us, :now) END
WHERE id IN (
    SELECT id FROM leases
    WHERE id > :after AND id >= :low AND id < :high AND created_us <= :cutoff_us
      AND state IN ('INTENT', 'ACTIVE', 'REVOKING')
    ORDER BY id LIMIT :limit
)
RETURNING id
"""


_RANGE_BEGINS = re.compile(r"(?<=WHERE )(?=id >=? :)")


def by_owner(statement: str) -> str:
    """Return a statement about a range of leases for those of ``:owner`` only; it uses their index."""
    return _RANGE_BEGINS.sub("owner = :owner AND ", statement)


ABANDON = f"""
UPDATE leases SET state = 'ABANDONED', generation = {NEXT_GENERATION}, claimed_by = '', due_us = 0
WHERE id IN (
    SELECT id FROM leases
    WHERE id >= :low AND id < :high AND state IN ('INTENT', 'ACTIVE', 'REVOKING') AND user_name <> ''
      AND (:live OR state = 'REVOKING' OR (state = 'ACTIVE' AND expires_us <= :now)) LIMIT :limit
)
RETURNING id
"""

LEASES_BY_USER_NAME = f"""
SELECT {LEASE_COLUMNS} FROM leases
WHERE user_name <> '' AND user_name IN (SELECT value FROM json_each(:names))
"""

ADOPT = f"{_INSERT_LEASE} VALUES ({_NEW_LEASE}, '', 0) ON CONFLICT DO NOTHING"

# A tombstone goes once a complete listing that began after every grace did not bring it back to life.
PURGE_TOMBSTONES = """
DELETE FROM leases
WHERE state = 'GONE' AND user_name <> '' AND account = :account
  AND gone_us <= :old_us AND gone_us <= :listed_us AND last_create_us <= :listed_us - :grace_us
"""

PURGE_SESSIONS = """
DELETE FROM leases
WHERE state = 'GONE' AND user_name = '' AND gone_us <= :old_us AND max_expires_us <= :old_us
"""

# The account that a mount is bound to: that of any row which has, or may have had, a user there.
BOUND_ACCOUNT = """
SELECT account FROM leases
WHERE id >= :low AND id < :high AND user_name <> '' AND typeof(account) = 'text'
  AND EXISTS (SELECT 1 FROM lease_counts WHERE mount = :mount AND users > 0)
LIMIT 1
"""

# What was begun by a clock that ran ahead is begun by now: a prefix of today takes it in.
BEGUN_BY_NOW = "UPDATE leases SET created_us = :now WHERE created_us > :now"

# A body that is not JSON makes json_extract an error, which would be that of all the other rows as well.
ENDING = "CASE WHEN json_valid(body) THEN ifnull(json_extract(body, '$.ending'), 0) ELSE 0 END"
HALF_MADE = f"(phase <> 'IDLE' OR late_us > 0 OR {ENDING} = 1)"
"""A rotation that still needs its mount's root."""
OF_STATIC_ROLE = "subject > name || '/static-creds/' AND subject < name || '/static-creds0'"
"""A rotation of a static role of the mount ``name``: while it is there, it may have keys to delete."""
DISABLED = f"""
SELECT name FROM mounts WHERE state = 'disabling' AND NOT EXISTS (
    SELECT 1 FROM lease_counts
    WHERE mount = name AND state IN ('INTENT', 'ACTIVE', 'REVOKING') AND n > 0)
  AND NOT EXISTS (
    SELECT 1 FROM rotations
    WHERE {OF_STATIC_ROLE}
      OR (subject > name || '/' AND subject < name || '0' AND {HALF_MADE} AND attempts < :stuck))
"""
REMOVE_ROTATIONS = "DELETE FROM rotations WHERE subject > :mount || '/' AND subject < :mount || '0'"
REMOVE_ROLES = "DELETE FROM roles WHERE mount = :mount"
REMOVE_ROOT = "DELETE FROM roots WHERE mount = :mount"
REMOVE_MOUNT = "DELETE FROM mounts WHERE name = :mount AND state = 'disabling'"

# --- configuration ---------------------------------------------------------------------------------------

NEWEST = """
SELECT max(coalesce(max(max(created_us, issue_us, last_renewal_us)), 1), 1) FROM leases
WHERE typeof(created_us) = 'integer' AND typeof(issue_us) = 'integer' AND typeof(last_renewal_us) = 'integer'
  AND max(created_us, issue_us, last_renewal_us) <= :max_us
"""
# The folder of a lease's user names the installation.
SOME_USER_PATHS = """
SELECT user_path FROM leases
WHERE user_name <> '' AND typeof(user_path) = 'text' AND user_path GLOB '/lessor/*/*'
"""

GET_META = "SELECT value FROM meta WHERE key = :key"
PUT_META = """
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""

DROP_META = "DELETE FROM meta WHERE key = :key"

MOUNT_COLUMNS = (
    "name, description, default_lease_ttl_us, max_lease_ttl_us, max_users, lease_us, lease_max_us,"
    " state, created_us"
)
ADD_MOUNT = f"""
INSERT INTO mounts ({MOUNT_COLUMNS})
VALUES (:name, :description, :default_lease_ttl_us, :max_lease_ttl_us, :max_users, :lease_us, :lease_max_us,
    :state, :created_us)
ON CONFLICT (name) DO NOTHING
"""
DISABLE_MOUNT = f"UPDATE mounts SET state = 'disabling' WHERE name = :name RETURNING {MOUNT_COLUMNS}"
GET_MOUNT = f"SELECT {MOUNT_COLUMNS} FROM mounts WHERE name = :name"
LIST_MOUNTS = f"SELECT {MOUNT_COLUMNS} FROM mounts WHERE name > :after ORDER BY name"
MOUNT_NAMES = "SELECT name FROM mounts WHERE name > :after AND typeof(name) = 'text' ORDER BY name"
PUT_MOUNT = """
UPDATE mounts SET description = :description, default_lease_ttl_us = :default_lease_ttl_us,
    max_lease_ttl_us = :max_lease_ttl_us, max_users = :max_users, lease_us = :lease_us,
    lease_max_us = :lease_max_us, state = :state
WHERE name = :name
"""

GET_ROOT = "SELECT mount, sealed, account, version, etag FROM roots WHERE mount = :mount"
ADD_ROOT = """
INSERT INTO roots (mount, sealed, account, version, etag) VALUES (:mount, :sealed, :account, :version, :etag)
ON CONFLICT (mount) DO NOTHING
"""
PUT_ROOT = """
UPDATE roots SET sealed = :sealed, account = :account, version = :version, etag = :etag
WHERE mount = :mount AND version = :expect_version
  AND (:account <> '' OR NOT EXISTS (SELECT 1 FROM lease_counts WHERE mount = :mount AND users > 0))
"""
BIND_ACCOUNT = """
UPDATE roots SET account = :account WHERE mount = :mount AND version = :version AND account IN ('', :account)
"""

ROLES_OF = "SELECT mount, name, etag, body FROM roles WHERE mount = :mount"
GET_ROLE = "SELECT mount, name, etag, body FROM roles WHERE mount = :mount AND name = :name"
LIST_ROLES = """
SELECT mount, name, etag, body FROM roles WHERE mount = :mount AND name > :after ORDER BY name
"""
ADD_ROLE = """
INSERT INTO roles (mount, name, etag, body) VALUES (:mount, :name, :etag, :body)
ON CONFLICT (mount, name) DO NOTHING
"""
PUT_ROLE = """
UPDATE roles SET etag = :etag, body = :body WHERE mount = :mount AND name = :name AND etag = :expect
"""
DELETE_ROLE = "DELETE FROM roles WHERE mount = :mount AND name = :name"

# --- rotations; a claimed row's holder has its newest generation ----------------------------------------

ROTATION_COLUMNS = "subject, phase, generation, due_us, late_us, attempts, sealed, fresh_sealed, body"
_SAME_ROTATION = "subject = :subject AND generation = :generation"

ADD_ROTATION = f"""
INSERT INTO rotations ({ROTATION_COLUMNS}, claimed)
VALUES (:subject, :phase, 1, :until, :late_us, :attempts, :sealed, :fresh_sealed, :body, 1)
ON CONFLICT (subject) DO NOTHING
RETURNING {ROTATION_COLUMNS}
"""
GET_ROTATION = f"SELECT {ROTATION_COLUMNS} FROM rotations WHERE subject = :subject"
ROTATIONS_OF = f"""
SELECT {ROTATION_COLUMNS} FROM rotations WHERE subject > :mount || '/' AND subject < :mount || '0'
"""
LIST_STATIC = f"""
SELECT {ROTATION_COLUMNS} FROM rotations WHERE subject > :after AND subject >= :low AND subject < :high
  AND {ENDING} = 0
ORDER BY subject
"""
STATIC_USER = """
SELECT subject FROM rotations
WHERE json_extract(body, '$.user_id') = :user_id AND json_extract(body, '$.account') = :account
  AND subject <> :subject AND subject GLOB '*/static-creds/*'
"""
STATIC_HOLDER = f"""
SELECT {ROTATION_COLUMNS} FROM rotations
WHERE (json_extract(body, '$.current') = :key_id OR json_extract(body, '$.previous') = :key_id
       OR json_extract(body, '$.fresh') = :key_id)
  AND subject <> :without AND subject GLOB '*/static-creds/*'
ORDER BY subject LIMIT 1
"""
ROTATED_AWAY = f"""
SELECT {ROTATION_COLUMNS} FROM rotations
WHERE subject GLOB '*/root' AND :key_id IN (SELECT value FROM json_each(body, '$.away'))
ORDER BY subject LIMIT 1
"""
UNFINISHED_OF_REMOVED = f"""
SELECT {ROTATION_COLUMNS} FROM ({DISABLED}) AS disabled
    JOIN rotations ON subject > name || '/' AND subject < name || '0'
WHERE {HALF_MADE} ORDER BY subject
"""
STATIC_OF_DISABLED = f"""
SELECT {ROTATION_COLUMNS} FROM mounts JOIN rotations ON {OF_STATIC_ROLE}
WHERE state = 'disabling' ORDER BY subject
"""
FORGET_STATIC = """
DELETE FROM rotations WHERE subject >= :low AND subject < :high
  AND EXISTS (SELECT 1 FROM mounts WHERE name = :mount AND state = 'disabling')
"""
FORGET_ROTATION = f"DELETE FROM rotations WHERE {_SAME_ROTATION}"
CLAIM_ROTATION = f"""
UPDATE rotations SET claimed = 1, generation = {NEXT_GENERATION}, due_us = :until
WHERE subject = :subject AND (claimed = 0 OR due_us <= :now)
RETURNING {ROTATION_COLUMNS}
"""
DUE_ROTATIONS = """
SELECT subject FROM rotations
WHERE due_us > 0 AND due_us <= :now AND subject NOT IN (SELECT value FROM json_each(:without))
ORDER BY due_us, subject LIMIT :limit
"""
NEXT_ROTATION = """
SELECT min(due_us) FROM rotations
WHERE due_us > 0 AND subject NOT IN (SELECT value FROM json_each(:without))
"""
MOVE_ROTATION = f"""
UPDATE rotations SET phase = :phase, generation = {NEXT_GENERATION}, claimed = :claimed, due_us = :due_us,
    late_us = :late_us, attempts = :attempts, sealed = :sealed, fresh_sealed = :fresh_sealed, body = :body
WHERE {_SAME_ROTATION}
RETURNING {ROTATION_COLUMNS}
"""
ROTATION_IS = f"SELECT 1 FROM rotations WHERE {_SAME_ROTATION}"
ROOT_BEFORE = "SELECT 1 FROM roots WHERE mount = :mount AND version = :version - 1"
SWITCH_ROOT = """
UPDATE roots SET sealed = :root_sealed, version = :version, etag = :etag
WHERE mount = :mount AND version = :version - 1
"""
# A due time that is no instant is never reached.
RESTORE_DUE_ROTATIONS = "UPDATE rotations SET due_us = :now WHERE due_us > :max_us"
POSTPONE_UNREADABLE_ROTATION = """
UPDATE rotations SET due_us = :until WHERE due_us > 0 AND due_us <= :now AND CAST(subject AS BLOB) = :subject
"""
VOID_ROTATION_CLAIMS = f"""
UPDATE rotations SET claimed = 0, generation = {NEXT_GENERATION}, due_us = :now WHERE claimed IS NOT 0
"""
