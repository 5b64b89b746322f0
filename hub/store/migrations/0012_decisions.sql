-- depends: 0011_mapping_and_identity
-- What people decided by hand, each with its reason. Append-only; holds no address, so that it outlives an erasure.

CREATE TABLE decision (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL, -- hub time
    decided_by text NOT NULL,
    what text NOT NULL CHECK (what IN ('settled', 'suppressed', 'lifted')),
    because text NOT NULL CHECK (btrim(because) <> ''),
    delivery_id bigint,
    email_hash bytea,
    detail jsonb NOT NULL DEFAULT '{}', -- as it was before, and as it is since
    CHECK (num_nonnulls(delivery_id, email_hash) = 1)
);
CREATE INDEX decision_delivery ON decision (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX decision_address ON decision (email_hash) WHERE email_hash IS NOT NULL;
