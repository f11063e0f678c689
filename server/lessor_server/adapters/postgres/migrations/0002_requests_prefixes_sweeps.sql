-- A request id names at most one lease of an owner and role; its digest tells a repeat from another request.
-- untaken: 1 while nobody has been given the credential; the expiry is then at most a minute away.
ALTER TABLE leases ADD COLUMN request_id text NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN request_digest text NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN untaken bigint NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX leases_request ON leases (owner, mount, role, request_id) WHERE request_id <> '';

-- Tombstones, oldest first.
CREATE INDEX leases_gone ON leases (gone_us, id) WHERE state = 'GONE';

-- A prefix that was put up for revocation: every lease in [low, high) that was begun by the cut-off.
CREATE TABLE prefixes (
    low       text COLLATE "C" NOT NULL,
    cutoff_us bigint NOT NULL,
    high      text COLLATE "C" NOT NULL,
    PRIMARY KEY (low, cutoff_us)
);
