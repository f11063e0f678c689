-- A session of STS is a lease without a user: its user_name is empty, and AWS keeps nothing of it to be undone.
-- users: how many of the n may have, or have had, a user on the account. max_users and the bond between a
-- mount's rows and its root's account look at these alone.
ALTER TABLE lease_counts ADD COLUMN users INTEGER NOT NULL DEFAULT 0;
UPDATE lease_counts SET users = n;

DROP TRIGGER leases_count_insert;
DROP TRIGGER leases_count_update;
DROP TRIGGER leases_count_delete;

CREATE TRIGGER leases_count_insert AFTER INSERT ON leases BEGIN
    INSERT INTO lease_counts (mount, role, state, n, users)
    VALUES (NEW.mount, NEW.role, NEW.state, 1, NEW.user_name <> '')
    ON CONFLICT (mount, role, state) DO UPDATE SET n = n + 1, users = users + excluded.users;
END;

CREATE TRIGGER leases_count_update AFTER UPDATE OF state ON leases WHEN OLD.state <> NEW.state BEGIN
    UPDATE lease_counts SET n = n - 1, users = users - (OLD.user_name <> '')
    WHERE mount = OLD.mount AND role = OLD.role AND state = OLD.state;
    INSERT INTO lease_counts (mount, role, state, n, users)
    VALUES (NEW.mount, NEW.role, NEW.state, 1, NEW.user_name <> '')
    ON CONFLICT (mount, role, state) DO UPDATE SET n = n + 1, users = users + excluded.users;
END;

CREATE TRIGGER leases_count_delete AFTER DELETE ON leases BEGIN
    UPDATE lease_counts SET n = n - 1, users = users - (OLD.user_name <> '')
    WHERE mount = OLD.mount AND role = OLD.role AND state = OLD.state;
END;

-- The sweep knows users by name; sessions have none.
DROP INDEX leases_user;
CREATE INDEX leases_user ON leases (user_name) WHERE user_name <> '';

-- Tombstones of sessions, oldest first: they are dropped by their age alone.
CREATE INDEX leases_session_gone ON leases (gone_us) WHERE state = 'GONE' AND user_name = '';
