"""The statements of data keys, of MACs, and of sealing rows again."""

from __future__ import annotations

from lessor_server.adapters.sql.statements import LEASE_COLUMNS

DATA_KEYS = "SELECT id, wrapped, wrapped_by, active, complete FROM sealing_keys ORDER BY id"
ADD_DATA_KEY = """
INSERT INTO sealing_keys (id, wrapped, wrapped_by, active, complete)
VALUES (:id, :wrapped, :wrapped_by, :active, :complete)
"""
REWRAP_DATA_KEY = "UPDATE sealing_keys SET wrapped = :wrapped, wrapped_by = :wrapped_by WHERE id = :id"
NONE_ACTIVE = "UPDATE sealing_keys SET active = 0"
DROP_OTHER_DATA_KEYS = """
DELETE FROM sealing_keys
WHERE id <> :id AND EXISTS (SELECT 1 FROM sealing_keys AS active_key WHERE id = :id AND active <> 0)
"""
DROP_DATA_KEYS = "DELETE FROM sealing_keys"
# What only a version with data keys writes.
IS_SEALED = """
SELECT EXISTS (SELECT 1 FROM row_macs) OR EXISTS (SELECT 1 FROM leases WHERE mac <> x'')
    OR EXISTS (SELECT 1 FROM roots WHERE substr(sealed, 1, 1) = x'02')
    OR EXISTS (SELECT 1 FROM rotations
               WHERE substr(sealed, 1, 1) = x'02' OR substr(fresh_sealed, 1, 1) = x'02')
"""
ROW_MACS = "SELECT place, mac FROM row_macs WHERE mount = :mount"
ROW_MAC = "SELECT mac FROM row_macs WHERE mount = :mount AND place = :place"
PUT_ROW_MAC = """
INSERT INTO row_macs (mount, place, mac) VALUES (:mount, :place, :mac)
ON CONFLICT (mount, place) DO UPDATE SET mac = excluded.mac
"""
DROP_ROW_MAC = "DELETE FROM row_macs WHERE mount = :mount AND place = :place"
DROP_ROW_MACS = "DELETE FROM row_macs WHERE mount = :mount"
DROP_ALL_ROW_MACS = "DELETE FROM row_macs"
ANY_LEASES_AFTER = f"SELECT {LEASE_COLUMNS} FROM leases WHERE id > :after ORDER BY id LIMIT :limit"
SET_LEASE_MAC = "UPDATE leases SET mac = :mac WHERE id = :id"
SEALED_MOUNTS = """
SELECT name FROM (
    SELECT name FROM mounts UNION SELECT mount FROM roots UNION SELECT mount FROM roles
    UNION SELECT substr(subject, 1, instr(subject, '/') - 1) FROM rotations
    UNION SELECT mount FROM row_macs) AS named
WHERE typeof(name) = 'text' AND name > :after ORDER BY name
"""
SET_ROOT_SEALED = "UPDATE roots SET sealed = :sealed WHERE mount = :mount"
SET_ROTATION_SEALED = """
UPDATE rotations SET sealed = :sealed, fresh_sealed = :fresh_sealed WHERE subject = :subject
"""
SEALED = {
    "roots": "SELECT sealed FROM roots",
    "rotations": "SELECT sealed, fresh_sealed FROM rotations",
}
"""All sealed values, by table: an earlier schema may lack one."""
PLACES = "SELECT place FROM row_macs WHERE mount = :mount"
