-- Rotations of access keys: one row for a mount's root, and one for each static role, which it defines.
-- subject: <mount>/root or <mount>/static-creds/<name>. claimed: 1 while some process works on it; due_us
-- is then the claim's end. body: JSON of all that no statement looks at. Secrets are sealed for the subject.
CREATE TABLE rotations (
    subject      text COLLATE "C" PRIMARY KEY,
    phase        text NOT NULL CHECK (phase IN ('IDLE', 'INTENDED', 'MADE', 'DROPPING', 'RETIRING')),
    generation   bigint NOT NULL,
    claimed      bigint NOT NULL,
    due_us       bigint NOT NULL,
    late_us      bigint NOT NULL,
    attempts     bigint NOT NULL,
    sealed       bytea NOT NULL,
    fresh_sealed bytea NOT NULL,
    body         text NOT NULL
);

CREATE INDEX rotations_due ON rotations (due_us, subject) WHERE due_us > 0;
