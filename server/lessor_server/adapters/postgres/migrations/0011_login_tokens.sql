-- Login tokens, by the SHA-256 of the token in hex; parent is the digest of the one that created it, or empty.
-- credential: JSON, what is kept of the credential that bought it. The MAC covers all other columns.
CREATE TABLE login_tokens (
    digest         text COLLATE "C" PRIMARY KEY,
    accessor       text NOT NULL,
    identity       text COLLATE "C" NOT NULL,
    parent         text COLLATE "C" NOT NULL,
    depth          bigint NOT NULL,
    credential     text NOT NULL,
    ttl_us         bigint NOT NULL,
    created_us     bigint NOT NULL,
    renewed_us     bigint NOT NULL,
    expires_us     bigint NOT NULL,
    max_expires_us bigint NOT NULL,
    renewable      bigint NOT NULL,
    mac            bytea NOT NULL
);

CREATE INDEX login_tokens_live ON login_tokens (identity, expires_us);
CREATE INDEX login_tokens_children ON login_tokens (parent) WHERE parent <> '';
CREATE INDEX login_tokens_ended ON login_tokens (expires_us);
