-- depends: 0016_pulling
-- Vendors count what came in the last so many seconds, whenever these began. A window that starts with its first call lets twice
-- the quota through around its end.

DROP TABLE quota;
CREATE TABLE quota (
    account text NOT NULL,
    limit_name text NOT NULL,
    seconds double precision NOT NULL, -- of the vendor's window
    newest bigint NOT NULL, -- number of the newest slot since 1970
    slots bigint[] NOT NULL, -- calls in each slot, the oldest first
    PRIMARY KEY (account, limit_name)
) WITH (fillfactor = 50);

-- A slot is a fiftieth of the window, and two slots more than that are counted: the one that is not full yet, and one for calls that
-- are longer on their way than others.
CREATE FUNCTION quota_width(seconds double precision) RETURNS double precision LANGUAGE sql IMMUTABLE
    RETURN (seconds + 0.05) / 50;

CREATE FUNCTION quota_now(slots bigint[], newest bigint, slot bigint) RETURNS bigint[] LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN slot <= newest THEN slots
                ELSE slots[least(slot - newest, 52) + 1 : 52] || array_fill(0::bigint, ARRAY[least(slot - newest, 52)::integer]) END;

CREATE FUNCTION quota_sum(slots bigint[]) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN (SELECT coalesce(sum(n), 0)::bigint FROM unnest(slots) AS n);

-- Counts a call under all limits, or under none: then `wait` seconds until the limit `full` has room. `fill` is how much of the
-- fullest limit is used now. Limits are taken in one order by everybody, so that two callers never wait for each other.
CREATE FUNCTION quota_take(
    of_account text, names text[], windows double precision[], rooms bigint[], cost bigint,
    OUT wait double precision, OUT full_limit text, OUT fill double precision
) LANGUAGE plpgsql AS $$
DECLARE
    here double precision;
    width double precision;
    slot bigint;
    held quota;
    used bigint;
    freed bigint;
    steps integer;
    now_slots bigint[][];
BEGIN
    wait := 0; full_limit := ''; fill := 0;
    FOR i IN 1 .. cardinality(names) LOOP
        INSERT INTO quota VALUES (of_account, names[i], windows[i], 0, array_fill(0::bigint, ARRAY[52]))
        ON CONFLICT (account, limit_name) DO UPDATE SET seconds = excluded.seconds WHERE quota.seconds <> excluded.seconds;
        SELECT * INTO held FROM quota q WHERE q.account = of_account AND q.limit_name = names[i] FOR UPDATE;
        here := extract(epoch FROM clock_timestamp());
        width := quota_width(windows[i]);
        slot := floor(here / width);
        held.slots := quota_now(held.slots, held.newest, slot);
        used := quota_sum(held.slots);
        IF used + cost > rooms[i] THEN
            steps := 0; freed := 0;
            WHILE used - freed + cost > rooms[i] AND steps < 52 LOOP
                steps := steps + 1; freed := freed + held.slots[steps];
            END LOOP;
            IF (slot + steps) * width - here > wait THEN
                wait := greatest((slot + steps) * width - here, 0.001); full_limit := names[i];
            END IF;
        END IF;
        fill := greatest(fill, used::double precision / greatest(rooms[i], 1));
    END LOOP;
    IF wait > 0 THEN RETURN; END IF;
    FOR i IN 1 .. cardinality(names) LOOP
        slot := floor(extract(epoch FROM clock_timestamp()) / quota_width(windows[i]));
        UPDATE quota q SET slots = quota_now(q.slots, q.newest, slot), newest = greatest(q.newest, slot)
        WHERE q.account = of_account AND q.limit_name = names[i];
        UPDATE quota q SET slots[52] = q.slots[52] + cost WHERE q.account = of_account AND q.limit_name = names[i];
    END LOOP;
END $$;
