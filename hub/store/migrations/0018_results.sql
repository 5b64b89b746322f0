-- depends: 0017_rolling_quotas
-- What came back, understood: where each mail stands, who read it (a person or a machine), and suppressions that were wrong.

ALTER TABLE delivery ADD COLUMN result text -- sent, delayed, delivered or bounced; NULL: nothing came back yet
    CHECK (result IN ('sent', 'delayed', 'delivered', 'bounced'));
UPDATE delivery d SET result = k.result
FROM (SELECT delivery_id, CASE max(CASE WHEN kind IN ('opened', 'clicked', 'complained', 'unsubscribed') THEN 4
                                        WHEN kind = 'bounced' THEN 3 WHEN kind = 'delivered' THEN 2 WHEN kind = 'delayed' THEN 1
                                        ELSE 0 END)
                          WHEN 3 THEN 'bounced' WHEN 1 THEN 'delayed' WHEN 0 THEN 'sent' ELSE 'delivered' END AS result
      FROM event GROUP BY delivery_id) k
WHERE k.delivery_id = d.id;

-- Of opens, clicks and the like: whether a machine did it, and what speaks for that. A later event may change the verdict.
ALTER TABLE event
    ADD COLUMN machine boolean NOT NULL DEFAULT false,
    ADD COLUMN evidence jsonb NOT NULL DEFAULT '{}'; -- agent, network, seconds after sending, signs

-- Lists and funnels ask who it was.
CREATE FUNCTION touch_judged_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO list_touch VALUES (NEW.contact_id, 'event:' || NEW.kind);
    RETURN NULL;
END $$;
CREATE TRIGGER touch_judged AFTER UPDATE OF machine ON event FOR EACH ROW
    WHEN (OLD.machine IS DISTINCT FROM NEW.machine) EXECUTE FUNCTION touch_judged_event();

-- "No such mailbox" said of many at once who are there: about us, not about them. What it had suppressed was let go again.
CREATE TABLE incident (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relay text NOT NULL,
    receiver text NOT NULL,  -- domain of the recipients
    signature text NOT NULL, -- what all the replies have in common
    why text NOT NULL,
    began_at timestamptz NOT NULL, -- hub time, like the next
    last_at timestamptz NOT NULL,
    closed_at timestamptz,
    bounces integer NOT NULL,
    lifted integer NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX incident_open ON incident (relay, receiver, signature) WHERE closed_at IS NULL;
CREATE INDEX event_dead ON event (occurred_at) WHERE kind = 'bounced' AND detail ->> 'class' = 'address';

-- What could not be read is kept, so that it can be looked at.
ALTER TABLE report ADD COLUMN raw bytea;
