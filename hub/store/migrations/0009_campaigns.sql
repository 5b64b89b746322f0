-- depends: 0008_message_ids
-- One-off campaigns, whose snapshot is their rows of the send ledger; and what tells a copied database from the hub's own.

CREATE TABLE campaign (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('approved', 'sending', 'paused', 'cancelled', 'finished')),
    message text NOT NULL,
    purpose text NOT NULL,
    list text NOT NULL,
    hash text NOT NULL, -- of the audience and the settings that were approved
    frozen bigint NOT NULL, -- rows of the snapshot: everybody on the list, whoever is excluded among them
    recipients bigint NOT NULL, -- those of them that were queued
    per_second double precision, -- how fast its mails follow each other; null: as fast as relays take them
    late interval NOT NULL,
    approved_at timestamptz NOT NULL, -- hub time, as all times of this table
    first_at timestamptz,
    last_at timestamptz,
    paused_at timestamptz,
    ended_at timestamptz -- finished or cancelled
);

ALTER TABLE delivery ADD COLUMN campaign_id bigint; -- no foreign key: a million checks at each freeze for a table that loses no row
CREATE INDEX delivery_campaign ON delivery (campaign_id, state) WHERE campaign_id IS NOT NULL;

-- By time: what waits for next week is not looked at with each claim.
CREATE INDEX delivery_due ON delivery (coalesce(not_before, '-infinity'), id) WHERE state = 'queued';
DROP INDEX delivery_queued;

-- A mail that comes back from a worker (a passing refusal, a crash before the relay saw it) while its campaign is
-- paused or cancelled is not queued again. The lock makes it wait for a pause that is being committed, and a pause
-- wait for it: campaigns change their own row first.
CREATE FUNCTION delivery_comes_back() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_is text := (SELECT state FROM campaign WHERE id = NEW.campaign_id FOR SHARE);
BEGIN
    IF now_is = 'paused' THEN
        NEW.state := 'held';
        NEW.reason := 'the campaign is paused';
    ELSIF now_is = 'cancelled' THEN
        NEW.state := 'excluded';
        NEW.reason := 'the campaign was cancelled';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER delivery_comes_back BEFORE UPDATE OF state ON delivery FOR EACH ROW
    WHEN (NEW.campaign_id IS NOT NULL AND NEW.state = 'queued' AND OLD.state IN ('claimed', 'sending'))
    EXECUTE FUNCTION delivery_comes_back();

-- Where and when this database came to be. A restore, a copy, a clone of the server or a recovery to a point in time
-- changes at least one of these; a restart or a crash changes none. What may not be asked here is ''.
CREATE FUNCTION database_birthmark() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    found jsonb := jsonb_build_object('database', (SELECT oid::text FROM pg_database WHERE datname = current_database()));
BEGIN
    BEGIN
        found := found || jsonb_build_object('system', (SELECT system_identifier::text FROM pg_control_system()));
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        found := found || jsonb_build_object('timeline', substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8));
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN  -- written once by initdb; a copy of the files has another time of its inode, however carefully it was made
        found := found || jsonb_build_object('files', extract(epoch FROM (pg_stat_file('PG_VERSION')).change)::bigint::text);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    RETURN found;
END $$;

ALTER TABLE instance
    ADD COLUMN birthmark jsonb, -- as it was when the hub first sent from here
    ADD COLUMN birth_xid text,  -- the transaction that wrote this row: after a restore from a dump it is another
    ADD COLUMN fenced_at timestamptz, -- hub time; nothing is sent until `hub release`
    ADD COLUMN fenced_for text NOT NULL DEFAULT '';
