-- depends: 0003_ledger_and_results
-- Webhooks in, pushes out, quotas, tokens, and the hub's own writes.

CREATE TABLE inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text NOT NULL,
    event_key text NOT NULL,
    object text NOT NULL,
    external_id text NOT NULL,
    action text NOT NULL,
    merged_ids text[] NOT NULL DEFAULT '{}',
    payload jsonb NOT NULL DEFAULT '{}',
    occurred_at timestamptz,
    received_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'done', 'set_aside')),
    attempts integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    UNIQUE (connection, event_key)
);
CREATE INDEX inbox_new ON inbox (connection, id) WHERE state = 'new';

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('result', 'field', 'consent')),
    dedupe_key text NOT NULL,
    contact_id bigint REFERENCES contact (id) ON DELETE SET NULL,
    event_id bigint REFERENCES event (id),
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN
        ('queued', 'attempting', 'done', 'dropped', 'dead', 'uncertain')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(), -- database time
    claim bigint NOT NULL DEFAULT 0,
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    fix text NOT NULL DEFAULT '',
    remote_id text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    UNIQUE (connection, dedupe_key)
);
CREATE SEQUENCE outbox_claim;
CREATE INDEX outbox_due ON outbox (connection, id) WHERE state = 'queued';
CREATE INDEX outbox_attempting ON outbox (connection) WHERE state = 'attempting';
CREATE INDEX outbox_contact ON outbox (contact_id);
CREATE INDEX outbox_event ON outbox (event_id);

-- What the hub itself wrote: an inbound change equal to it is an echo, not news.
CREATE TABLE echo (
    connection text NOT NULL,
    object text NOT NULL,
    external_id text NOT NULL,
    field text NOT NULL,
    value_hash bytea NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (connection, object, external_id, field)
);

-- Calls used of each limit of each account; windows are aligned to the database's clock.
CREATE TABLE quota (
    account text NOT NULL,
    limit_name text NOT NULL,
    window_start timestamptz NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account, limit_name)
);

-- A stop that a vendor ordered: no call of this account before `until`.
CREATE TABLE quota_pause (
    account text NOT NULL,
    limit_name text NOT NULL,
    until timestamptz NOT NULL,
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (account, limit_name)
);

-- OAuth tokens, sealed with the instance's key.
CREATE TABLE token (
    connection text PRIMARY KEY,
    sealed bytea NOT NULL,
    expires_at timestamptz,
    changed_at timestamptz NOT NULL
);
