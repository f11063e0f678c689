-- Instants and spans are whole microseconds (…_us); 0 stands for "never" in an instant.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE mounts (
    name                 TEXT PRIMARY KEY,
    description          TEXT NOT NULL,
    default_lease_ttl_us INTEGER NOT NULL,
    max_lease_ttl_us     INTEGER NOT NULL,
    max_users            INTEGER NOT NULL,
    lease_us             INTEGER,
    lease_max_us         INTEGER,
    state                TEXT NOT NULL CHECK (state IN ('enabled', 'disabling')),
    created_us           INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE roots (
    mount   TEXT PRIMARY KEY,
    sealed  BLOB NOT NULL,
    account TEXT NOT NULL,
    version INTEGER NOT NULL,
    etag    TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE roles (
    mount TEXT NOT NULL,
    name  TEXT NOT NULL,
    etag  TEXT NOT NULL,
    body  TEXT NOT NULL,
    PRIMARY KEY (mount, name)
) WITHOUT ROWID;

CREATE TABLE leases (
    id              TEXT PRIMARY KEY,
    mount           TEXT NOT NULL,
    role            TEXT NOT NULL,
    credential_type TEXT NOT NULL,
    owner           TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('INTENT', 'ACTIVE', 'REVOKING', 'GONE', 'ABANDONED')),
    generation      INTEGER NOT NULL,
    claimed_by      TEXT NOT NULL,
    due_us          INTEGER NOT NULL,
    account         TEXT NOT NULL,
    user_name       TEXT NOT NULL,
    user_path       TEXT NOT NULL,
    inline_policy   TEXT NOT NULL,
    policy_arns     TEXT NOT NULL,
    groups          TEXT NOT NULL,
    access_key_id   TEXT NOT NULL,
    ttl_us          INTEGER NOT NULL,
    max_ttl_us      INTEGER NOT NULL,
    created_us      INTEGER NOT NULL,
    issue_us        INTEGER NOT NULL,
    last_renewal_us INTEGER NOT NULL,
    expires_us      INTEGER NOT NULL,
    max_expires_us  INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    looks           INTEGER NOT NULL,
    last_error      TEXT NOT NULL,
    last_create_us  INTEGER NOT NULL,
    gone_us         INTEGER NOT NULL
) WITHOUT ROWID;

-- What falls due, earliest first: the window, the backstop, and what a paused account left over.
CREATE INDEX leases_due ON leases (due_us, id) WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING');

-- What some process works on: void at a start, found without reading the other rows.
CREATE INDEX leases_claimed ON leases (id) WHERE claimed_by <> '';

-- Counts, kept by the database in the commit of the row itself, as an index is.
CREATE TABLE lease_counts (
    mount TEXT NOT NULL,
    role  TEXT NOT NULL,
    state TEXT NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (mount, role, state)
) WITHOUT ROWID;

CREATE TRIGGER leases_count_insert AFTER INSERT ON leases BEGIN
    INSERT INTO lease_counts (mount, role, state, n) VALUES (NEW.mount, NEW.role, NEW.state, 1)
    ON CONFLICT (mount, role, state) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER leases_count_update AFTER UPDATE OF state ON leases WHEN OLD.state <> NEW.state BEGIN
    UPDATE lease_counts SET n = n - 1 WHERE mount = OLD.mount AND role = OLD.role AND state = OLD.state;
    INSERT INTO lease_counts (mount, role, state, n) VALUES (NEW.mount, NEW.role, NEW.state, 1)
    ON CONFLICT (mount, role, state) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER leases_count_delete AFTER DELETE ON leases BEGIN
    UPDATE lease_counts SET n = n - 1 WHERE mount = OLD.mount AND role = OLD.role AND state = OLD.state;
END;
