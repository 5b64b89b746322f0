-- depends: 0002_lists_and_funnels
-- The send ledger, what came back, and what may be sent to whom.

CREATE TABLE delivery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message text NOT NULL,
    contact_id bigint NOT NULL REFERENCES contact (id),
    occurrence text NOT NULL, -- what asked for it, e.g. funnel:onboarding:1:0
    funnel_entry_id bigint REFERENCES funnel_entry (id),
    funnel text NOT NULL DEFAULT '',
    purpose text NOT NULL,
    email text, -- the address used, fixed at claim time
    state text NOT NULL DEFAULT 'queued' CHECK (state IN
        ('queued', 'claimed', 'sending', 'accepted', 'rejected', 'uncertain', 'excluded', 'held')),
    reason text NOT NULL DEFAULT '',
    not_before timestamptz, -- hub time
    retry_at timestamptz,   -- database time
    attempts integer NOT NULL DEFAULT 0,
    claimed_by text,
    claim bigint NOT NULL DEFAULT 0, -- fence: only the holder of the newest claim may write the outcome
    lease_until timestamptz, -- database time
    relay text,
    message_id text UNIQUE,
    subject text NOT NULL DEFAULT '',
    reply_code integer,
    reply_text text,
    queued_at timestamptz NOT NULL,
    sent_at timestamptz,
    settled_at timestamptz, -- when `delivered` or `bounced` became known
    UNIQUE (message, contact_id, occurrence)
);
CREATE SEQUENCE delivery_claim;
CREATE INDEX delivery_queued ON delivery (id) WHERE state = 'queued';
CREATE INDEX delivery_open ON delivery (lease_until) WHERE state IN ('claimed', 'sending');
CREATE INDEX delivery_unsettled ON delivery (sent_at) WHERE state = 'accepted' AND settled_at IS NULL;
CREATE INDEX delivery_contact ON delivery (contact_id, message);

-- One row an event; `source_key` makes a repeated event a no-op. `push_seq` feeds the outbox.
CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery (id),
    contact_id bigint NOT NULL REFERENCES contact (id),
    kind text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    source text NOT NULL, -- relay, dsn, web, grace
    source_key text NOT NULL UNIQUE,
    detail jsonb NOT NULL DEFAULT '{}',
    planned_at timestamptz -- its pushes stand in the outbox
);
CREATE INDEX event_delivery ON event (delivery_id, kind);
CREATE INDEX event_contact ON event (contact_id, kind);
CREATE INDEX event_received ON event (received_at);
CREATE INDEX event_unplanned ON event (id) WHERE planned_at IS NULL;

-- A report (DSN) that was read; kept with its verdict, matched or not.
CREATE TABLE report (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_key text NOT NULL UNIQUE,
    received_at timestamptz NOT NULL,
    delivery_id bigint REFERENCES delivery (id),
    verdict text NOT NULL, -- bounced, delayed, delivered, unmatched, ignored, unreadable
    detail jsonb NOT NULL DEFAULT '{}'
);

-- Append-only; the newest proof wins for an opt-in, any opt-out stops.
CREATE TABLE consent (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email_hash bytea NOT NULL,
    contact_id bigint REFERENCES contact (id) ON DELETE SET NULL,
    purpose text NOT NULL, -- '*' = every purpose
    channel text NOT NULL DEFAULT 'email',
    status text NOT NULL CHECK (status IN ('in', 'out')),
    source text NOT NULL, -- a connection's name, web, admin
    at timestamptz NOT NULL,
    proof text NOT NULL DEFAULT '',
    UNIQUE (email_hash, purpose, channel, source, status, at)
);
CREATE INDEX consent_address ON consent (email_hash, purpose);

CREATE TABLE suppression (
    email_hash bytea NOT NULL PRIMARY KEY,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    evidence jsonb NOT NULL DEFAULT '{}'
);

-- Whether a live session does the named work now (it holds the lock of `Database.exclusive`): a process that was
-- killed is known to be gone at once, long before its lease runs out.
CREATE FUNCTION work_is_held(name text) RETURNS boolean STABLE LANGUAGE sql
AS $$
    SELECT EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.classid::bigint = (hashtext('hub work')::bigint & 4294967295)
          AND l.objid::bigint = (hashtext(name)::bigint & 4294967295))
$$;
