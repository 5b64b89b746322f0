-- depends: 0019_companies_and_two_ways
-- Consent with its proof, and the verdict that follows from it.

ALTER TABLE consent
    ADD COLUMN source_kind text NOT NULL DEFAULT 'system'
        CHECK (source_kind IN ('system', 'connection', 'page', 'import', 'admin')),
    ADD COLUMN how text NOT NULL DEFAULT 'single'
        CHECK (how IN ('double_opt_in', 'single', 'imported', 'by_hand', 'told', 'carried')),
    ADD COLUMN dated boolean NOT NULL DEFAULT true, -- whoever told it said when; else `at` is only when it was first seen
    ADD COLUMN recorded_at timestamptz NOT NULL DEFAULT now(); -- hub time
UPDATE consent SET recorded_at = at,
    source_kind = CASE source WHEN 'web' THEN 'page' WHEN 'admin' THEN 'admin' ELSE 'connection' END,
    how = CASE WHEN source = 'web' THEN 'single' WHEN source = 'admin' THEN 'by_hand'
               WHEN proof = 'said under another address of this person' THEN 'carried' ELSE 'told' END,
    dated = source IN ('web', 'admin') OR proof <> '';

-- What follows from all that was said: one row for each purpose that was ever named, and '*' for all others.
CREATE TABLE consent_verdict (
    email_hash bytea NOT NULL,
    channel text NOT NULL,
    purpose text NOT NULL,
    status text NOT NULL CHECK (status IN ('in', 'out', 'none')),
    entry_id bigint, -- of `consent`: the one that decided
    source text NOT NULL DEFAULT '', -- of that entry
    at timestamptz, -- of that entry
    PRIMARY KEY (email_hash, channel, purpose)
);

-- The verdict depends on what was said and when, never on the order in which the hub came to hear of it. A flag that is
-- seen again is no new word: it counts from when it was first seen since it last was otherwise.
CREATE FUNCTION reckon_consent(hashes bytea[]) RETURNS SETOF consent_verdict STABLE LANGUAGE sql AS $$
    SELECT a.email_hash, a.channel, a.purpose, coalesce(o.status, i.status, 'none'), coalesce(o.id, i.id),
           coalesce(o.source, i.source, ''), coalesce(o.at, i.at)
    FROM (
        SELECT email_hash, channel, purpose FROM consent WHERE email_hash = ANY(hashes)
        UNION SELECT email_hash, channel, '*' FROM consent WHERE email_hash = ANY(hashes)
    ) a
    LEFT JOIN LATERAL (
        SELECT n.id, n.status, n.source, n.at FROM consent n
        WHERE n.email_hash = a.email_hash AND n.channel = a.channel AND n.purpose IN (a.purpose, '*') AND n.status = 'out'
          AND (n.dated OR 'out' IS DISTINCT FROM (
                SELECT p.status FROM consent p
                WHERE p.email_hash = n.email_hash AND p.channel = n.channel AND p.purpose = n.purpose AND p.source = n.source
                  AND NOT p.dated AND (p.at, p.status) < (n.at, n.status)
                ORDER BY p.at DESC, p.status DESC LIMIT 1))
          AND NOT EXISTS (
                SELECT FROM consent y
                WHERE y.email_hash = n.email_hash AND y.channel = n.channel AND y.purpose IN (a.purpose, '*')
                  AND y.status = 'in' AND y.dated AND y.proof <> '' AND y.at > n.at)
        ORDER BY n.at DESC, n.id LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT y.id, y.status, y.source, y.at FROM consent y
        WHERE o.id IS NULL AND y.email_hash = a.email_hash AND y.channel = a.channel AND y.purpose IN (a.purpose, '*')
          AND y.status = 'in'
        ORDER BY (y.dated AND y.proof <> '') DESC, y.at DESC, y.id LIMIT 1
    ) i ON true
$$;

-- Two transactions that record words about one address judge it one after the other: the second sees what the first said.
CREATE FUNCTION judge_consent(hashes bytea[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO consent_verdict (email_hash, channel, purpose, status)
    SELECT DISTINCT email_hash, channel, '*', 'none' FROM consent WHERE email_hash = ANY(hashes) ORDER BY 1, 2
    ON CONFLICT (email_hash, channel, purpose) DO UPDATE SET status = consent_verdict.status;
    INSERT INTO consent_verdict SELECT * FROM reckon_consent(hashes) ORDER BY 1, 2, 3
    ON CONFLICT (email_hash, channel, purpose) DO UPDATE
    SET status = excluded.status, entry_id = excluded.entry_id, source = excluded.source, at = excluded.at
    WHERE (consent_verdict.status, consent_verdict.entry_id) IS DISTINCT FROM (excluded.status, excluded.entry_id);
END $$;

CREATE FUNCTION judge_said() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hashes bytea[] := (SELECT array_agg(DISTINCT email_hash) FROM said);
BEGIN
    IF hashes IS NOT NULL THEN
        PERFORM judge_consent(hashes);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER judge_said AFTER INSERT ON consent REFERENCING NEW TABLE AS said
    FOR EACH STATEMENT EXECUTE FUNCTION judge_said();

DO $$ BEGIN PERFORM judge_consent((SELECT array_agg(DISTINCT email_hash) FROM consent)); END $$;

-- Somebody asked to get mail: not before the link of the mail is used does it become consent. Such a person is no contact
-- yet for lists and mails; the state says so.
ALTER TABLE contact DROP CONSTRAINT contact_state_check;
ALTER TABLE contact ADD CONSTRAINT contact_state_check
    CHECK (state IN ('live', 'requested', 'archived', 'deleted', 'merged'));
CREATE TABLE consent_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email_hash bytea NOT NULL,
    contact_id bigint REFERENCES contact (id) ON DELETE SET NULL,
    channel text NOT NULL DEFAULT 'email',
    purpose text NOT NULL,
    source text NOT NULL,
    wording text NOT NULL, -- what the person agreed to
    origin text NOT NULL DEFAULT '', -- the network that it came from, without the host
    requested_at timestamptz NOT NULL, -- hub time, as all times of this table
    expires_at timestamptz NOT NULL,
    confirmed_at timestamptz
);
CREATE INDEX consent_request_address ON consent_request (email_hash, requested_at);
CREATE INDEX consent_request_origin ON consent_request (origin, requested_at);

-- Which systems can be told of an opt-out of which purpose, as hub.yaml says.
CREATE TABLE consent_target (
    connection text NOT NULL,
    purpose text NOT NULL,
    subscription text NOT NULL, -- what the purpose is called over there
    needs_contact boolean NOT NULL,
    PRIMARY KEY (connection, purpose)
);

-- An opt-out that a system has to be told within 48 hours. Its row of the outbox knows how that stands.
CREATE TABLE consent_obligation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id bigint NOT NULL REFERENCES consent (id),
    email_hash bytea NOT NULL,
    contact_id bigint REFERENCES contact (id) ON DELETE SET NULL,
    connection text NOT NULL,
    purpose text NOT NULL,
    said_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL, -- hub time
    outbox_id bigint NOT NULL REFERENCES outbox (id),
    UNIQUE (entry_id, connection, purpose)
);
CREATE INDEX consent_obligation_address ON consent_obligation (email_hash, connection, purpose);
CREATE INDEX consent_obligation_outbox ON consent_obligation (outbox_id);
CREATE VIEW consent_clock AS
    SELECT o.id, o.contact_id, o.purpose, o.connection, o.said_at, o.due_at, x.confirmed_at, x.attempts, x.code, x.message, x.fix,
           CASE x.state WHEN 'done' THEN 'confirmed' WHEN 'queued' THEN 'waiting' WHEN 'attempting' THEN 'waiting'
                        WHEN 'dropped' THEN 'refused' WHEN 'dead' THEN 'refused' ELSE 'uncertain' END AS state
    FROM consent_obligation o JOIN outbox x ON x.id = o.outbox_id;

-- From here on an address's hash can be keyed: HMAC-SHA256 (RFC 2104) over the salted hash, with a key that stands here only
-- sealed by the hub's secret. Each session carries it as the setting hub.address_key, in hex: the key's inner and outer
-- pad, 64 bytes each. A session that has none gets an error and never a wrong hash. Without a sealed key hashes are salted.
ALTER TABLE instance ADD COLUMN address_key bytea;
CREATE FUNCTION keyed_hash(pads bytea, hash bytea) RETURNS bytea IMMUTABLE PARALLEL SAFE LANGUAGE sql
AS $$ SELECT sha256(substr(pads, 65, 64) || sha256(substr(pads, 1, 64) || hash)) $$;
CREATE OR REPLACE FUNCTION address_hash(address text) RETURNS bytea STABLE PARALLEL SAFE LANGUAGE sql
AS $$
    SELECT CASE WHEN i.address_key IS NULL THEN a.hash
                ELSE keyed_hash(decode(nullif(current_setting('hub.address_key'), ''), 'hex'), a.hash) END
    FROM instance i CROSS JOIN LATERAL (SELECT sha256(i.salt || convert_to(lower(address), 'UTF8')) AS hash) a
$$;

-- Erasure: what is left of a person is an anonymous contact whose mails and events still add up, a hash that keeps mail
-- back, and hashes by which a pull knows whom not to take in again.
ALTER TABLE contact DROP CONSTRAINT contact_state_check;
ALTER TABLE contact ADD CONSTRAINT contact_state_check
    CHECK (state IN ('live', 'requested', 'archived', 'deleted', 'merged', 'erased'));
ALTER TABLE contact_change DROP CONSTRAINT contact_change_kind_check;
ALTER TABLE contact_change ADD CONSTRAINT contact_change_kind_check
    CHECK (kind IN ('created', 'changed', 'archived', 'deleted', 'merged', 'restored', 'separated', 'converted', 'erased'));
ALTER TABLE outbox DROP CONSTRAINT outbox_kind_check;
ALTER TABLE outbox ADD CONSTRAINT outbox_kind_check CHECK (kind IN ('result', 'field', 'consent', 'erase'));
ALTER TABLE outbox ADD COLUMN forget boolean NOT NULL DEFAULT false; -- its contents go as soon as it is settled

CREATE TABLE erasure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email_hash bytea NOT NULL,
    at timestamptz NOT NULL, -- hub time
    decided_by text NOT NULL,
    counts jsonb NOT NULL -- table -> rows that were emptied or taken away
);
CREATE INDEX erasure_address ON erasure (email_hash);
CREATE TABLE erasure_receipt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure_id bigint NOT NULL REFERENCES erasure (id),
    connection text NOT NULL,
    outbox_id bigint REFERENCES outbox (id) -- null: the connector cannot; a person does it
);
CREATE TABLE erased (
    connection text NOT NULL, -- '' of an address
    object text NOT NULL, -- of an address: address
    hash bytea NOT NULL, -- of the vendor's id, or of the address
    PRIMARY KEY (connection, object, hash)
);
