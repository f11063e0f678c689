-- Instants and spans are whole microseconds (…_us); 0 stands for "never" in an instant. Texts compare by their
-- bytes (COLLATE "C"): ranges of ids depend on it.

CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
) WITH (fillfactor = 50);

INSERT INTO meta (key, value) VALUES ('configuration', 'locked by each transaction that writes configuration');

CREATE TABLE mounts (
    name                 text COLLATE "C" PRIMARY KEY,
    description          text NOT NULL,
    default_lease_ttl_us bigint NOT NULL,
    max_lease_ttl_us     bigint NOT NULL,
    max_users            bigint NOT NULL,
    lease_us             bigint,
    lease_max_us         bigint,
    state                text NOT NULL CHECK (state IN ('enabled', 'disabling')),
    created_us           bigint NOT NULL
);

CREATE TABLE roots (
    mount   text COLLATE "C" PRIMARY KEY,
    sealed  bytea NOT NULL,
    account text NOT NULL,
    version bigint NOT NULL,
    etag    text NOT NULL
);

CREATE TABLE roles (
    mount text COLLATE "C" NOT NULL,
    name  text COLLATE "C" NOT NULL,
    etag  text NOT NULL,
    body  text NOT NULL,
    PRIMARY KEY (mount, name)
);

CREATE TABLE leases (
    id              text COLLATE "C" PRIMARY KEY,
    mount           text COLLATE "C" NOT NULL,
    role            text COLLATE "C" NOT NULL,
    credential_type text NOT NULL,
    owner           text COLLATE "C" NOT NULL,
    state           text NOT NULL CHECK (state IN ('INTENT', 'ACTIVE', 'REVOKING', 'GONE', 'ABANDONED')),
    generation      bigint NOT NULL,
    claimed_by      text NOT NULL,
    due_us          bigint NOT NULL,
    account         text NOT NULL,
    user_name       text NOT NULL,
    user_path       text NOT NULL,
    inline_policy   text NOT NULL,
    policy_arns     text NOT NULL,
    groups          text NOT NULL,
    access_key_id   text NOT NULL,
    ttl_us          bigint NOT NULL,
    max_ttl_us      bigint NOT NULL,
    created_us      bigint NOT NULL,
    issue_us        bigint NOT NULL,
    last_renewal_us bigint NOT NULL,
    expires_us      bigint NOT NULL,
    max_expires_us  bigint NOT NULL,
    attempts        bigint NOT NULL,
    looks           bigint NOT NULL,
    last_error      text NOT NULL,
    last_create_us  bigint NOT NULL,
    gone_us         bigint NOT NULL
);

-- What falls due, earliest first.
CREATE INDEX leases_due ON leases (due_us, id) WHERE state IN ('INTENT', 'ACTIVE', 'REVOKING');

-- Counts, kept by the database in the commit of the row itself, as an index is.
CREATE TABLE lease_counts (
    mount text COLLATE "C" NOT NULL,
    role  text COLLATE "C" NOT NULL,
    state text NOT NULL,
    n     bigint NOT NULL,
    PRIMARY KEY (mount, role, state)
) WITH (fillfactor = 50);
