-- Rotations of access keys: one row for a mount's root, and one for each static role, which it defines.
-- subject: <mount>/root or <mount>/static-creds/<name>. claimed: 1 while some process works on it; due_us
-- is then the claim's end. body: all that no statement looks at. Secrets are sealed for the subject.
CREATE TABLE rotations (
    subject      TEXT PRIMARY KEY,
    phase        TEXT NOT NULL CHECK (phase IN ('IDLE', 'INTENDED', 'MADE', 'DROPPING', 'RETIRING')),
    generation   INTEGER NOT NULL,
    claimed      INTEGER NOT NULL,
    due_us       INTEGER NOT NULL,
    late_us      INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    sealed       BLOB NOT NULL,
    fresh_sealed BLOB NOT NULL,
    body         TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX rotations_due ON rotations (due_us, subject) WHERE due_us > 0;
