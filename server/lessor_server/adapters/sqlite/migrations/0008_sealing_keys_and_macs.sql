-- Data keys, each wrapped by the key-encryption key that wrapped_by names. active: 1 for the one that new values
-- are sealed under. complete: proves that all rows had MACs when the key was stored.
CREATE TABLE sealing_keys (
    id         TEXT PRIMARY KEY,
    wrapped    BLOB NOT NULL,
    wrapped_by TEXT NOT NULL,
    active     INTEGER NOT NULL,
    complete   BLOB NOT NULL
) WITHOUT ROWID;

-- The MACs of a mount's rows, by place: mounts/<mount>, roots/<mount>, roles/<mount>/<name>, rotations/<subject>.
-- The empty mount has those of the installation: meta/held, and row_macs/<mount>, which covers all of a mount.
-- The one of its empty place covers all others of the empty mount.
CREATE TABLE row_macs (
    mount TEXT NOT NULL,
    place TEXT NOT NULL,
    mac   BLOB NOT NULL,
    PRIMARY KEY (mount, place)
) WITHOUT ROWID;

-- The MAC of what a lease may be renewed or issued again for.
ALTER TABLE leases ADD COLUMN mac BLOB NOT NULL DEFAULT x'';
