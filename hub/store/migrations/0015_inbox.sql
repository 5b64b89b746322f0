-- Webhook calls that nobody understands yet, whole; and events that wait for a vendor that is away.
-- depends: 0014_relay_learning

ALTER TABLE inbox
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT '-infinity', -- database time
    ADD COLUMN record jsonb, -- as the event tells it, of a vendor whose events are whole
    ADD COLUMN headers jsonb, -- of a call that is kept whole, without what proves its origin
    ADD COLUMN body bytea; -- as it was signed
DROP INDEX inbox_new;
CREATE INDEX inbox_new ON inbox (connection, due_at, id) WHERE state = 'new';
CREATE INDEX inbox_set_aside ON inbox (connection, id) WHERE state = 'set_aside';
CREATE INDEX inbox_received ON inbox (connection, received_at);
