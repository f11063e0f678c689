"""The statements about replicas, their shares of rates, and the events that they exchange."""

from __future__ import annotations

from typing import Final

from lessor_server.adapters.sql import statements as sql

LOCK: Final = "SELECT 1 FROM meta WHERE key = 'replicas' FOR UPDATE"
FORGET: Final = "DELETE FROM replicas WHERE seen_us <= :until_us"
SIGN: Final = """
INSERT INTO replicas (name, version, seen_us, clock_ahead_us, settings, known_key, used_key)
VALUES (:name, :program, :seen_us, :ahead_us, :settings, :known_key, :used_key)
ON CONFLICT (name) DO UPDATE SET version = excluded.version, seen_us = excluded.seen_us,
    clock_ahead_us = excluded.clock_ahead_us, settings = excluded.settings,
    known_key = excluded.known_key, used_key = excluded.used_key
"""
REPLICAS: Final = """
SELECT name, version, seen_us, clock_ahead_us, settings, known_key, used_key FROM replicas ORDER BY name
"""
ACTIVE_KEY: Final = "SELECT id FROM sealing_keys WHERE active <> 0"
LEAVE: Final = "DELETE FROM replicas WHERE name = :name"

END_SHARES: Final = "DELETE FROM rate_shares WHERE until_us <= :now"
SHARES: Final = """
SELECT replica, account, rate, demand, share, reserved, until_us FROM rate_shares ORDER BY account, replica
"""
PUT_SHARE: Final = """
INSERT INTO rate_shares (replica, account, rate, demand, share, reserved, until_us)
VALUES (:replica, :account, :rate, :demand, :share, :reserved, :until_us)
ON CONFLICT (account, replica) DO UPDATE SET rate = excluded.rate, demand = excluded.demand,
    share = excluded.share, reserved = excluded.reserved, until_us = excluded.until_us
"""

VOID_CLAIMS_OF: Final = f"""
UPDATE leases SET generation = {sql.NEXT_GENERATION}, claimed_by = '', due_us = least(due_us, :now)
FROM (SELECT id AS claimed_id FROM leases
      WHERE state = 'REVOKING' AND claimed_by <> '' AND claimed_by IN (
          SELECT name FROM replicas
          WHERE seen_us <= :until_us AND name IN (SELECT value FROM json_each(:names)))
      ORDER BY id FOR UPDATE SKIP LOCKED) AS claimed
WHERE id = claimed_id
"""

VOID_LOST_CLAIMS: Final = f"""
UPDATE leases SET generation = {sql.NEXT_GENERATION}, claimed_by = '', due_us = least(due_us, :now)
WHERE state = 'REVOKING' AND claimed_by <> '' AND claimed_by = :by
  AND id NOT IN (SELECT value FROM json_each(:ids))
"""

NEXT_EVENTS: Final = """
UPDATE meta SET value = (value::bigint + :count_us)::text WHERE key = 'lease_events' RETURNING value::bigint
"""
LAST_EVENT: Final = "SELECT coalesce(max(number), 0) FROM lease_events WHERE at_us < :until_us"
ADD_EVENT: Final = """
INSERT INTO lease_events (number, replica, kind, lease_id, owner, at_us, error)
VALUES (:number_us, :replica, :kind, :lease_id, :owner, :at_us, :error)
"""
EVENTS: Final = """
SELECT number, kind, lease_id, owner, at_us, error FROM lease_events
WHERE number > :after_us AND replica <> :replica ORDER BY number LIMIT :limit
"""
IS_EVENT: Final = "SELECT 1 FROM lease_events WHERE number = :number_us AND replica = :replica"
DROP_EVENTS: Final = "DELETE FROM lease_events WHERE at_us <= :until_us"
