-- reason: why the caller asked for the lease, in the caller's words; kept with the tombstone.
ALTER TABLE leases ADD COLUMN reason text NOT NULL DEFAULT '';
