-- depends: 0009_campaigns
-- Lists that are kept fresh by what changed: a queue of touched contacts, filled in the transaction that touches them.

-- `what` is what a rule may read: contact, identity, deals, segments, imports, consent, event:<kind>, list:<name>. Rows are
-- only appended and taken away, never changed, so that writers wait for nobody.
CREATE TABLE list_touch (
    contact_id bigint NOT NULL,
    what text NOT NULL
)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000); -- it is emptied every few seconds

ALTER TABLE list
    ADD COLUMN fingerprint text NOT NULL DEFAULT '', -- of the compiled rule
    ADD COLUMN needs_rebuild boolean NOT NULL DEFAULT true, -- its members are not what the rule and the touches make of them
    ADD COLUMN size bigint NOT NULL DEFAULT 0,
    ADD COLUMN timed_to timestamptz,   -- hub time up to which time itself was reckoned with
    ADD COLUMN due_at timestamptz,     -- hub time at which time alone may change it next
    ADD COLUMN verified_at timestamptz, -- hub time of the last comparison with the whole rule
    ADD COLUMN problem text NOT NULL DEFAULT '', -- why it could not be evaluated
    ADD COLUMN retry_at timestamptz;   -- hub time at which that is tried again
UPDATE list l SET size = (SELECT count(*) FROM list_member m WHERE m.list_id = l.id);

-- The size over time: the last one of each day (UTC) on which somebody joined or left.
CREATE TABLE list_size (
    list_id bigint NOT NULL REFERENCES list (id) ON DELETE CASCADE,
    day date NOT NULL,
    size bigint NOT NULL,
    joined bigint NOT NULL DEFAULT 0,
    "left" bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (list_id, day)
);

-- What a list's rule was, since when: with `list_change` it tells who was on it at any time, and why.
CREATE TABLE list_rule (
    list_id bigint NOT NULL REFERENCES list (id) ON DELETE CASCADE,
    since timestamptz NOT NULL,
    rule text NOT NULL,
    PRIMARY KEY (list_id, since)
);
INSERT INTO list_rule SELECT id, coalesce(refreshed_at, now()), rule FROM list;

-- Addresses of a static list. One that is no contact yet waits for the contact.
CREATE TABLE list_import (
    list_id bigint NOT NULL REFERENCES list (id) ON DELETE CASCADE,
    address text NOT NULL, -- lower case
    contact_id bigint REFERENCES contact (id) ON DELETE SET NULL,
    at timestamptz NOT NULL,
    run_id bigint,
    PRIMARY KEY (list_id, address)
);
CREATE INDEX list_import_contact ON list_import (contact_id);
CREATE INDEX list_import_waiting ON list_import (address) WHERE contact_id IS NULL;

-- Time windows of rules ask what happened between two moments.
CREATE INDEX event_occurred ON event (kind, occurred_at);
CREATE INDEX contact_created_at ON contact (created_at);
CREATE INDEX deal_created_at ON deal (created_at);

-- Rules compare stages without case; without the index PostgreSQL would not know how many deals are in one.
CREATE INDEX deal_stage ON deal (lower(stage));

-- Queries on rows just written are planned each time (EXECUTE): a plan made while the tables were empty would stay.

CREATE FUNCTION touch_contacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch SELECT id, 'contact' FROM changed;
    IF TG_OP = 'UPDATE' AND EXISTS (SELECT FROM changed WHERE merged_into IS NOT NULL) THEN
        INSERT INTO list_touch SELECT merged_into, 'contact' FROM changed WHERE merged_into IS NOT NULL;
        UPDATE list_import i SET contact_id = n.merged_into FROM changed n WHERE i.contact_id = n.id AND n.merged_into IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON contact REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_contacts();
CREATE TRIGGER touch_updated AFTER UPDATE ON contact REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_contacts();

-- Deals and segments mean a contact through its identities.
CREATE FUNCTION touch_identities() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch SELECT contact_id, 'identity' FROM changed;
    RETURN NULL;
END $$;
CREATE FUNCTION touch_moved_identity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch VALUES (OLD.contact_id, 'identity'), (NEW.contact_id, 'identity');
    RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON contact_identity REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_identities();
CREATE TRIGGER touch_deleted AFTER DELETE ON contact_identity REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_identities();
CREATE TRIGGER touch_updated AFTER UPDATE OF contact_id ON contact_identity FOR EACH ROW
    WHEN (OLD.contact_id IS DISTINCT FROM NEW.contact_id) EXECUTE FUNCTION touch_moved_identity();

CREATE FUNCTION touch_deals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $query$
        INSERT INTO list_touch SELECT i.contact_id, 'deals' FROM changed n JOIN deal_contact dc ON dc.deal_id = n.id
        JOIN contact_identity i ON i.connection = dc.connection AND i.object = 'contact' AND i.external_id = dc.contact_ref
    $query$;
    RETURN NULL;
END $$;
CREATE TRIGGER touch_updated AFTER UPDATE ON deal REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_deals();

-- The argument is what the linked contacts are touched by: deals or segments.
CREATE FUNCTION touch_linked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $query$
        INSERT INTO list_touch SELECT i.contact_id, $1 FROM changed n
        JOIN contact_identity i ON i.connection = n.connection AND i.object = 'contact' AND i.external_id = n.contact_ref
    $query$ USING TG_ARGV[0];
    RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON deal_contact REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_linked('deals');
CREATE TRIGGER touch_deleted AFTER DELETE ON deal_contact REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_linked('deals');
CREATE TRIGGER touch_inserted AFTER INSERT ON segment_member REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_linked('segments');
CREATE TRIGGER touch_deleted AFTER DELETE ON segment_member REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_linked('segments');

CREATE FUNCTION touch_segment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch SELECT i.contact_id, 'segments' FROM segment_member m
    JOIN contact_identity i ON i.connection = m.connection AND i.object = 'contact' AND i.external_id = m.contact_ref
    WHERE m.segment_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER touch_updated AFTER UPDATE ON segment FOR EACH ROW
    WHEN ((OLD.connection, OLD.name, OLD.state) IS DISTINCT FROM (NEW.connection, NEW.name, NEW.state))
    EXECUTE FUNCTION touch_segment();

CREATE FUNCTION touch_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch SELECT contact_id, 'event:' || kind FROM changed;
    RETURN NULL;
END $$;
CREATE FUNCTION touch_moved_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch VALUES (OLD.contact_id, 'event:' || NEW.kind), (NEW.contact_id, 'event:' || NEW.kind);
    RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON event REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_events();
CREATE TRIGGER touch_updated AFTER UPDATE OF contact_id ON event FOR EACH ROW
    WHEN (OLD.contact_id IS DISTINCT FROM NEW.contact_id) EXECUTE FUNCTION touch_moved_event();

CREATE FUNCTION touch_imports() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch SELECT contact_id, 'imports' FROM changed WHERE contact_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER touch_inserted AFTER INSERT ON list_import REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_imports();
CREATE TRIGGER touch_updated AFTER UPDATE ON list_import REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_imports();
CREATE TRIGGER touch_deleted AFTER DELETE ON list_import REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION touch_imports();
