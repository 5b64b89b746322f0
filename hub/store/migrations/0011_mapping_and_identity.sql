-- depends: 0010_fresh_lists
-- Each system's own word on a person's fields, merges that can be undone, further addresses, and schemas as last seen.

-- {field: {v: value, at: time, fill: true where it only fills}}: kept where several records mean one person.
ALTER TABLE contact_identity ADD COLUMN said jsonb NOT NULL DEFAULT '{}';

-- What a merge moved, so that it can be taken back. `before` holds both contacts as they were; `moved` ids by table.
CREATE TABLE contact_merge (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    loser bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    survivor bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    at timestamptz NOT NULL,
    source text NOT NULL, -- a connection's name, or admin
    before jsonb NOT NULL,
    moved jsonb NOT NULL,
    undone_at timestamptz
);
CREATE INDEX contact_merge_loser ON contact_merge (loser) WHERE undone_at IS NULL;
CREATE INDEX contact_merge_survivor ON contact_merge (survivor) WHERE undone_at IS NULL;

-- Two contacts of whom a person said that they are not one.
CREATE TABLE contact_apart (
    one bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    other bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    at timestamptz NOT NULL,
    PRIMARY KEY (one, other),
    CHECK (one < other)
);

ALTER TABLE contact_change DROP CONSTRAINT contact_change_kind_check;
ALTER TABLE contact_change ADD CONSTRAINT contact_change_kind_check
    CHECK (kind IN ('created', 'changed', 'archived', 'deleted', 'merged', 'restored', 'separated'));

-- Addresses of a person beside the one in `contact.email`: former ones, and others that a system knows.
CREATE TABLE contact_address (
    contact_id bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    email text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('former', 'other')),
    connection text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (contact_id, email)
);
CREATE INDEX contact_address_email ON contact_address (email);

-- A vendor's schema as `hub mapping check` accepted it: what is different now is drift.
CREATE TABLE vendor_schema (
    connection text NOT NULL,
    object text NOT NULL,
    fields jsonb NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (connection, object)
);
