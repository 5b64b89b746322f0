-- depends: 0001_people
-- Dynamic lists with who joined and left, and people on their way through funnels.

CREATE TABLE list (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    rule text NOT NULL,
    refreshed_at timestamptz,
    retired_at timestamptz -- no longer in hub.yaml
);

CREATE TABLE list_member (
    list_id bigint NOT NULL REFERENCES list (id) ON DELETE CASCADE,
    contact_id bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (list_id, contact_id)
);
CREATE INDEX list_member_contact ON list_member (contact_id);

-- Written under the list's advisory lock, so that ids are visible in order: funnels read on from a position.
CREATE TABLE list_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    list_id bigint NOT NULL REFERENCES list (id) ON DELETE CASCADE,
    contact_id bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    change text NOT NULL CHECK (change IN ('joined', 'left')),
    at timestamptz NOT NULL
);
CREATE INDEX list_change_list ON list_change (list_id, id);
CREATE INDEX list_change_contact ON list_change (contact_id);

CREATE TABLE funnel (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    read_to bigint NOT NULL DEFAULT 0, -- the last list_change taken in
    retired_at timestamptz
);

CREATE TABLE funnel_entry (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    funnel_id bigint NOT NULL REFERENCES funnel (id) ON DELETE CASCADE,
    contact_id bigint NOT NULL REFERENCES contact (id) ON DELETE CASCADE,
    occurrence integer NOT NULL DEFAULT 1,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'done', 'left')),
    position text NOT NULL DEFAULT '0', -- path of the next step, e.g. 2 or 2.then.0
    wake_at timestamptz NOT NULL,       -- hub time
    entered_at timestamptz NOT NULL,
    finished_at timestamptz,
    reason text NOT NULL DEFAULT '',
    UNIQUE (funnel_id, contact_id, occurrence)
);
CREATE INDEX funnel_entry_due ON funnel_entry (wake_at) WHERE state = 'active';
CREATE INDEX funnel_entry_contact ON funnel_entry (contact_id);

-- What each person met on the way, for "why".
CREATE TABLE funnel_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id bigint NOT NULL REFERENCES funnel_entry (id) ON DELETE CASCADE,
    at timestamptz NOT NULL,
    position text NOT NULL,
    what text NOT NULL, -- entered, send, wait, branch, set, left, done
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX funnel_log_entry ON funnel_log (entry_id, id);
