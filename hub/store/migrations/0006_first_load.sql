-- depends: 0005_resumption

-- When a stream was first read to its end. Until then lists that build on it wait: half of a CRM's deals would put
-- people on lists who do not belong there.
ALTER TABLE cursor ADD COLUMN loaded_at timestamptz;
UPDATE cursor SET loaded_at = saved_at
WHERE EXISTS (SELECT FROM run r WHERE r.kind = 'pull' AND r.connection = cursor.connection AND r.stream = cursor.stream
              AND r.state IN ('done', 'partial') AND r.resumes_at IS NULL);

-- What a list waits for, as connection/stream; empty when it is kept up to date.
ALTER TABLE list ADD COLUMN waits_for text[] NOT NULL DEFAULT '{}';
