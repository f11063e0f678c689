-- Login tokens, by the SHA-256 of the token in hex; parent is the digest of the one that created it, or empty.
-- credential: JSON, what is kept of the credential that bought it. The MAC covers all other columns.
CREATE TABLE login_tokens (
    digest         TEXT PRIMARY KEY,
    accessor       TEXT NOT NULL,
    identity       TEXT NOT NULL,
    parent         TEXT NOT NULL,
    depth          INTEGER NOT NULL,
    credential     TEXT NOT NULL,
    ttl_us         INTEGER NOT NULL,
    created_us     INTEGER NOT NULL,
    renewed_us     INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    max_expires_us INTEGER NOT NULL,
    renewable      INTEGER NOT NULL,
    mac            BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX login_tokens_live ON login_tokens (identity, expires_us);
CREATE INDEX login_tokens_children ON login_tokens (parent) WHERE parent <> '';
CREATE INDEX login_tokens_ended ON login_tokens (expires_us);
