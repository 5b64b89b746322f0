-- depends: 0015_inbox
-- A pulled contact costs what its rows cost: no index that nobody reads, and no look at a row that the same transaction wrote.

-- Nobody asked by it, and every change of a contact entered all indexes because this one changed.
DROP INDEX contact_changed_at;

-- Lineage is read by contact alone: one index instead of two.
ALTER TABLE contact_change DROP CONSTRAINT contact_change_pkey;
DROP INDEX contact_change_contact;
ALTER TABLE contact_change ADD PRIMARY KEY (contact_id, id);

-- An id is looked up for each record of each pull: what tells ids apart comes first.
ALTER TABLE contact_identity DROP CONSTRAINT contact_identity_pkey, ADD PRIMARY KEY (external_id, connection, object);

-- An identity and a line of lineage are made from the row of the contact, in its transaction: to look for it again, and to lock
-- it, is a third of what a new contact costs. What goes with a contact goes by triggers.
ALTER TABLE contact_identity DROP CONSTRAINT contact_identity_contact_id_fkey;
ALTER TABLE contact_change DROP CONSTRAINT contact_change_contact_id_fkey;

CREATE FUNCTION contacts_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE contact_identity, contact_change;
    ELSE
        DELETE FROM contact_identity i USING gone g WHERE i.contact_id = g.id;
        DELETE FROM contact_change h USING gone g WHERE h.contact_id = g.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER contacts_deleted AFTER DELETE ON contact REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION contacts_go();
CREATE TRIGGER contacts_truncated AFTER TRUNCATE ON contact FOR EACH STATEMENT EXECUTE FUNCTION contacts_go();

-- A statement touches all its contacts by one row of the queue. Who reads it asks `touched`.
ALTER TABLE list_touch
    ALTER COLUMN contact_id DROP NOT NULL,
    ADD COLUMN contacts bigint[] CHECK (num_nonnulls(contact_id, contacts) = 1);
ALTER TABLE list_touch ALTER COLUMN contacts SET STORAGE EXTERNAL; -- it is gone in seconds: to compress it is lost work
CREATE VIEW touched AS
    SELECT c AS contact_id, t.what
    FROM list_touch t CROSS JOIN LATERAL unnest(coalesce(t.contacts, ARRAY[t.contact_id])) AS c;

CREATE OR REPLACE FUNCTION touch_contacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch (contacts, what) SELECT array_agg(id), 'contact' FROM changed HAVING count(*) > 0;
    IF TG_OP = 'UPDATE' AND EXISTS (SELECT FROM changed WHERE merged_into IS NOT NULL) THEN
        INSERT INTO list_touch SELECT merged_into, 'contact' FROM changed WHERE merged_into IS NOT NULL;
        UPDATE list_import i SET contact_id = n.merged_into FROM changed n WHERE i.contact_id = n.id AND n.merged_into IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION touch_identities() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch (contacts, what) SELECT array_agg(contact_id), 'identity' FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;
