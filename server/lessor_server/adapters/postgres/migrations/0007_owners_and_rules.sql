-- policy_rule: the pattern of the access rule that admitted the lease; empty for root's, and for older leases.
ALTER TABLE leases ADD COLUMN policy_rule text COLLATE "C" NOT NULL DEFAULT '';

-- The leases of one owner, by id: what a caller may see without the permission to list.
CREATE INDEX leases_owner ON leases (owner, id);

-- What counts against the max_leases of a rule, for one owner: live leases, and sessions that AWS has not ended
-- although their leases are gone. The first also has the owners of live leases.
CREATE INDEX leases_rule ON leases (owner, policy_rule) WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING');
CREATE INDEX leases_rule_session ON leases (owner, policy_rule, max_expires_us)
    WHERE state = 'GONE' AND user_name = '' AND policy_rule <> '';

-- owner: only leases of this owner; empty for every owner.
ALTER TABLE prefixes ADD COLUMN owner text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE prefixes DROP CONSTRAINT prefixes_pkey;
ALTER TABLE prefixes ADD PRIMARY KEY (low, cutoff_us, owner);
