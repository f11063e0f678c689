-- A session of STS is a lease without a user: its user_name is empty, and AWS keeps nothing of it to be undone.
-- users: how many of the n may have, or have had, a user on the account. max_users and the bond between a
-- mount's rows and its root's account look at these alone.
ALTER TABLE lease_counts ADD COLUMN users bigint NOT NULL DEFAULT 0;

-- One change of a count for all rows of a statement, in the order of the counts: two statements do not block each
-- other for ever.
CREATE FUNCTION lessor_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lease_counts (mount, role, state, n, users)
    SELECT mount, role, state, count(*), count(*) FILTER (WHERE user_name <> '')
    FROM new_leases GROUP BY mount, role, state ORDER BY mount, role, state
    ON CONFLICT (mount, role, state)
    DO UPDATE SET n = lease_counts.n + excluded.n, users = lease_counts.users + excluded.users;
    RETURN NULL;
END $$;

CREATE FUNCTION lessor_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lease_counts (mount, role, state, n, users)
    SELECT mount, role, state, sum(change), coalesce(sum(change) FILTER (WHERE user_name <> ''), 0) FROM (
        SELECT mount, role, state, user_name, 1 AS change FROM new_leases
        UNION ALL SELECT mount, role, state, user_name, -1 FROM old_leases) AS changes
    GROUP BY mount, role, state HAVING sum(change) <> 0 ORDER BY mount, role, state
    ON CONFLICT (mount, role, state)
    DO UPDATE SET n = lease_counts.n + excluded.n, users = lease_counts.users + excluded.users;
    RETURN NULL;
END $$;

CREATE FUNCTION lessor_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lease_counts (mount, role, state, n, users)
    SELECT mount, role, state, -count(*), -count(*) FILTER (WHERE user_name <> '')
    FROM old_leases GROUP BY mount, role, state ORDER BY mount, role, state
    ON CONFLICT (mount, role, state)
    DO UPDATE SET n = lease_counts.n + excluded.n, users = lease_counts.users + excluded.users;
    RETURN NULL;
END $$;

CREATE TRIGGER leases_count_insert AFTER INSERT ON leases
    REFERENCING NEW TABLE AS new_leases FOR EACH STATEMENT EXECUTE FUNCTION lessor_count_inserted();
CREATE TRIGGER leases_count_update AFTER UPDATE ON leases
    REFERENCING OLD TABLE AS old_leases NEW TABLE AS new_leases
    FOR EACH STATEMENT EXECUTE FUNCTION lessor_count_updated();
CREATE TRIGGER leases_count_delete AFTER DELETE ON leases
    REFERENCING OLD TABLE AS old_leases FOR EACH STATEMENT EXECUTE FUNCTION lessor_count_deleted();

-- The sweep knows users by name; sessions have none.
CREATE INDEX leases_user ON leases (user_name) WHERE user_name <> '';

-- Tombstones of sessions, oldest first: they are dropped by their age alone.
CREATE INDEX leases_session_gone ON leases (gone_us) WHERE state = 'GONE' AND user_name = '';
