-- Who holds an IAM user, and who a key: asked before a static role takes a user, and before a key is deleted.
CREATE INDEX rotations_user ON rotations (json_extract(body, '$.user_id'));
CREATE INDEX rotations_current ON rotations (json_extract(body, '$.current'));
CREATE INDEX rotations_previous ON rotations (json_extract(body, '$.previous'));
CREATE INDEX rotations_fresh ON rotations (json_extract(body, '$.fresh'));
