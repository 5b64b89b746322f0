-- depends: 0013_claims
-- What was found of a relay holds for a while, for the relay as hub.yaml describes it, and until an admin says otherwise.

ALTER TABLE relay_state
    ADD COLUMN learned_at timestamptz, -- hub time, of `pipelining`
    ADD COLUMN learned_of text NOT NULL DEFAULT '', -- digest of the relay's own keys in hub.yaml at that time
    ADD COLUMN forgotten integer NOT NULL DEFAULT 0; -- how often `hub relays forget` was said; running workers hear it by that
