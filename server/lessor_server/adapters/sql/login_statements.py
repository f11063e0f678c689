"""The statements of login tokens."""

from __future__ import annotations

LOGIN_COLUMNS = (
    "accessor, digest, identity, parent, depth, credential, ttl_us, created_us, renewed_us, expires_us,"
    " max_expires_us, renewable, mac"
)

# One process writes to SQLite, so nothing has to be locked there.
LOCK_IDENTITY = "SELECT :identity"
LIVE_TOKENS = "SELECT count(*) FROM login_tokens WHERE identity = :identity AND expires_us > :now"
IS_LIVE = "SELECT 1 FROM login_tokens WHERE digest = :parent AND expires_us > :now"
ADD_LOGIN_TOKEN = f"""
INSERT INTO login_tokens ({LOGIN_COLUMNS})
VALUES (:accessor, :digest, :identity, :parent, :depth, :credential, :ttl_us, :created_us, :renewed_us,
    :expires_us, :max_expires_us, :renewable, :mac)
"""
GET_LOGIN_TOKEN = f"SELECT {LOGIN_COLUMNS} FROM login_tokens WHERE digest = :digest"
RENEW_LOGIN_TOKEN = """
UPDATE login_tokens SET expires_us = :expires_us, renewed_us = :renewed_us, mac = :mac
WHERE digest = :digest AND expires_us > :now
"""
END_LOGIN_TOKEN = """
DELETE FROM login_tokens WHERE digest IN (
    WITH RECURSIVE tree(member) AS (
        SELECT digest FROM login_tokens WHERE digest = :digest
        UNION SELECT login_tokens.digest FROM login_tokens JOIN tree ON parent = member AND parent <> '')
    SELECT member FROM tree)
RETURNING digest
"""
PURGE_EXPIRED = """
DELETE FROM login_tokens WHERE digest IN (
    SELECT digest FROM login_tokens WHERE expires_us <= :now LIMIT :limit)
"""
# A child that was stored while its parent was being deleted.
PURGE_ORPHANS = """
DELETE FROM login_tokens WHERE digest IN (
    SELECT digest FROM login_tokens
    WHERE parent <> '' AND NOT EXISTS (
        SELECT 1 FROM login_tokens AS above WHERE above.digest = login_tokens.parent) LIMIT :limit)
"""
DROP_LOGIN_TOKENS = "DELETE FROM login_tokens"
LOGIN_TOKENS_AFTER = f"""
SELECT {LOGIN_COLUMNS} FROM login_tokens WHERE digest > :after ORDER BY digest LIMIT :limit
"""
# A renewal of another process has given the row the MAC of its new content.
SET_LOGIN_MAC = "UPDATE login_tokens SET mac = :mac WHERE digest = :digest AND mac = :old_mac"
