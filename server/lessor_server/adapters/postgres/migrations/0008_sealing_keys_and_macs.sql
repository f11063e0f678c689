-- Data keys, each wrapped by the key-encryption key that wrapped_by names. active: 1 for the one that new values
-- are sealed under. complete: proves that all rows had MACs when the key was stored.
CREATE TABLE sealing_keys (
    id         text COLLATE "C" PRIMARY KEY,
    wrapped    bytea NOT NULL,
    wrapped_by text NOT NULL,
    active     bigint NOT NULL,
    complete   bytea NOT NULL
);

-- The MACs of a mount's rows, by place: mounts/<mount>, roots/<mount>, roles/<mount>/<name>, rotations/<subject>.
-- The empty mount has those of the installation: meta/held, and row_macs/<mount>, which covers all of a mount.
-- The one of its empty place covers all others of the empty mount.
CREATE TABLE row_macs (
    mount text COLLATE "C" NOT NULL,
    place text COLLATE "C" NOT NULL,
    mac   bytea NOT NULL,
    PRIMARY KEY (mount, place)
);

-- The MAC of what a lease may be renewed or issued again for.
ALTER TABLE leases ADD COLUMN mac bytea NOT NULL DEFAULT ''::bytea;
