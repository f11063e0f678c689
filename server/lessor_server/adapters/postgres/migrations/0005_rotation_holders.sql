-- Who holds an IAM user, and who a key: asked before a static role takes a user, and before a key is deleted.
CREATE INDEX rotations_user ON rotations ((body::jsonb ->> 'user_id'));
CREATE INDEX rotations_current ON rotations ((body::jsonb ->> 'current'));
CREATE INDEX rotations_previous ON rotations ((body::jsonb ->> 'previous'));
CREATE INDEX rotations_fresh ON rotations ((body::jsonb ->> 'fresh'));
