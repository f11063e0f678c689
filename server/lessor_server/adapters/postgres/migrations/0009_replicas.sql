-- Replicas, and what they share. Only PostgreSQL has these tables: a file of SQLite has one process.
-- known_key: the active data key, if the replica knows it; used_key: the one that it seals with.
CREATE TABLE replicas (
    name           text COLLATE "C" PRIMARY KEY,
    version        text NOT NULL,
    seen_us        bigint NOT NULL,
    clock_ahead_us bigint NOT NULL,
    settings       text NOT NULL,
    known_key      text NOT NULL,
    used_key       text NOT NULL
) WITH (fillfactor = 50);

-- Shares of an account's rate, in calls a second; reserved is valid until until_us.
CREATE TABLE rate_shares (
    account  text COLLATE "C" NOT NULL,
    replica  text COLLATE "C" NOT NULL,
    rate     double precision NOT NULL,
    demand   double precision NOT NULL,
    share    double precision NOT NULL,
    reserved double precision NOT NULL,
    until_us bigint NOT NULL,
    PRIMARY KEY (account, replica)
) WITH (fillfactor = 50);

-- What happened to leases in the last minute, for the watchers of all replicas. Numbers are in the order of the
-- commits, because each transaction that adds some locks the row of meta.
CREATE TABLE lease_events (
    number   bigint PRIMARY KEY,
    replica  text COLLATE "C" NOT NULL,
    kind     text NOT NULL,
    lease_id text COLLATE "C" NOT NULL,
    owner    text COLLATE "C" NOT NULL,
    at_us    bigint NOT NULL,
    error    text NOT NULL
);

-- What replicas are revoking. Each claim changes due_us, which has an index as well.
CREATE INDEX leases_claimed ON leases (claimed_by) WHERE claimed_by <> '';

INSERT INTO meta (key, value) VALUES
    ('replicas', 'locked by each replica that gives a sign of life'),
    ('lease_events', '0');
