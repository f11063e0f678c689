-- policy_rule: the pattern of the access rule that admitted the lease; empty for root's, and for older leases.
ALTER TABLE leases ADD COLUMN policy_rule TEXT NOT NULL DEFAULT '';

-- The leases of one owner, by id: what a caller may see without the permission to list.
CREATE INDEX leases_owner ON leases (owner, id);

-- What counts against the max_leases of a rule, for one owner: live leases, and sessions that AWS has not ended
-- although their leases are gone. The first also has the owners of live leases. The last columns are those of
-- the conditions, so that no row is read.
CREATE INDEX leases_rule ON leases (owner, policy_rule, state) WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING');
CREATE INDEX leases_rule_session ON leases (owner, policy_rule, max_expires_us, state, user_name)
    WHERE state = 'GONE' AND user_name = '' AND policy_rule <> '';

-- owner: only leases of this owner; empty for every owner. SQLite cannot change a primary key in place.
CREATE TABLE prefixes_of_owners (
    low       TEXT NOT NULL,
    cutoff_us INTEGER NOT NULL,
    high      TEXT NOT NULL,
    owner     TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (low, cutoff_us, owner)
) WITHOUT ROWID;
INSERT INTO prefixes_of_owners (low, cutoff_us, high) SELECT low, cutoff_us, high FROM prefixes;
DROP TABLE prefixes;
ALTER TABLE prefixes_of_owners RENAME TO prefixes;
