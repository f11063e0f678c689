"""The statements of rotations; a row's holder has its newest generation."""

from __future__ import annotations

from lessor_server.adapters.sqlite.statements import (
    DISABLED,
    ENDING,
    HALF_MADE,
    NEXT_GENERATION,
    OF_STATIC_ROLE,
)

_COLUMNS = "subject, phase, generation, due_us, late_us, attempts, sealed, fresh_sealed, body"
_HELD = "subject = :subject AND generation = :generation"

ADD = f"""
INSERT INTO rotations ({_COLUMNS}, claimed)
VALUES (:subject, :phase, 1, :until, :late_us, :attempts, :sealed, :fresh_sealed, :body, 1)
ON CONFLICT (subject) DO NOTHING
RETURNING {_COLUMNS}
"""
GET = f"SELECT {_COLUMNS} FROM rotations WHERE subject = :subject"
LIST = f"""
SELECT {_COLUMNS} FROM rotations WHERE subject > :after AND subject >= :low AND subject < :high
  AND {ENDING} = 0
ORDER BY subject
"""
TAKEN = """
SELECT subject FROM rotations
WHERE json_extract(body, '$.user_id') = :user_id AND json_extract(body, '$.account') = :account
  AND subject <> :subject AND subject GLOB '*/static-creds/*'
"""
HOLDER = f"""
SELECT {_COLUMNS} FROM rotations
WHERE (json_extract(body, '$.current') = :key_id OR json_extract(body, '$.previous') = :key_id
       OR json_extract(body, '$.fresh') = :key_id)
  AND subject <> :without AND subject GLOB '*/static-creds/*'
ORDER BY subject LIMIT 1
"""
AWAY = f"""
SELECT {_COLUMNS} FROM rotations
WHERE subject GLOB '*/root' AND :key_id IN (SELECT value FROM json_each(body, '$.away'))
ORDER BY subject LIMIT 1
"""
LEFT_BEHIND = f"""
SELECT {_COLUMNS} FROM ({DISABLED}) JOIN rotations ON subject > name || '/' AND subject < name || '0'
WHERE {HALF_MADE} ORDER BY subject
"""
STATIC_OF_DISABLED = f"""
SELECT {_COLUMNS} FROM mounts JOIN rotations ON {OF_STATIC_ROLE} WHERE state = 'disabling' ORDER BY subject
"""
FORGET_STATIC = """
DELETE FROM rotations WHERE subject >= :low AND subject < :high
  AND EXISTS (SELECT 1 FROM mounts WHERE name = :mount AND state = 'disabling')
"""
FORGET = f"DELETE FROM rotations WHERE {_HELD}"
CLAIM = f"""
UPDATE rotations SET claimed = 1, generation = {NEXT_GENERATION}, due_us = :until
WHERE subject = :subject AND (claimed = 0 OR due_us <= :now)
RETURNING {_COLUMNS}
"""
DUE = """
SELECT subject FROM rotations
WHERE due_us > 0 AND due_us <= :now AND subject NOT IN (SELECT value FROM json_each(:without))
ORDER BY due_us, subject LIMIT :limit
"""
NEXT = """
SELECT min(due_us) FROM rotations
WHERE due_us > 0 AND subject NOT IN (SELECT value FROM json_each(:without))
"""
MOVE = f"""
UPDATE rotations SET phase = :phase, generation = {NEXT_GENERATION}, claimed = :claimed, due_us = :due_us,
    late_us = :late_us, attempts = :attempts, sealed = :sealed, fresh_sealed = :fresh_sealed, body = :body
WHERE {_HELD}
RETURNING {_COLUMNS}
"""
HELD = f"SELECT 1 FROM rotations WHERE {_HELD}"
ROOT_IS = "SELECT 1 FROM roots WHERE mount = :mount AND version = :version - 1"
SWITCH_ROOT = """
UPDATE roots SET sealed = :root_sealed, version = :version, etag = :etag
WHERE mount = :mount AND version = :version - 1
"""
# A due time that is no instant is never reached.
RESTORE_DUE = "UPDATE rotations SET due_us = :now WHERE due_us > :max_us"
POSTPONE_UNREADABLE = """
UPDATE rotations SET due_us = :until WHERE due_us > 0 AND due_us <= :now AND CAST(subject AS BLOB) = :subject
"""
TAKE_OVER = f"""
UPDATE rotations SET claimed = 0, generation = {NEXT_GENERATION}, due_us = :now WHERE claimed IS NOT 0
"""
