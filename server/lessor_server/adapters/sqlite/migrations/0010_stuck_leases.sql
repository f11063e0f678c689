-- The revocations that AWS has refused often (STUCK_AFTER in domain/lease.py): metrics count them each 10 s.
CREATE INDEX leases_stuck ON leases (id) WHERE state = 'REVOKING' AND attempts >= 6;
