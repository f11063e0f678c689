-- A request id names at most one lease of an owner and role; its digest tells a repeat from another request.
-- untaken: 1 while nobody has been given the credential; the expiry is then at most a minute away.
ALTER TABLE leases ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN request_digest TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN untaken INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX leases_request ON leases (owner, mount, role, request_id) WHERE request_id <> '';

-- The sweep knows users by name.
CREATE INDEX leases_user ON leases (user_name);

-- Tombstones, oldest first.
CREATE INDEX leases_gone ON leases (gone_us, id) WHERE state = 'GONE';

-- A prefix that was put up for revocation: every lease in [low, high) that was begun by the cut-off.
CREATE TABLE prefixes (
    low       TEXT NOT NULL,
    cutoff_us INTEGER NOT NULL,
    high      TEXT NOT NULL,
    PRIMARY KEY (low, cutoff_us)
) WITHOUT ROWID;
