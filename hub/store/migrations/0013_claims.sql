-- depends: 0012_decisions
-- A mail is claimed in one commit and settled in the next; which of the claimed ones were offered, the worker's journal knows.

-- Claimed and not begun: never offered. Begun: the recovery finds out, and where nothing is known they are uncertain.
UPDATE delivery SET state = 'queued', attempts = attempts - 1, lease_until = NULL WHERE state = 'claimed';
UPDATE delivery SET state = 'claimed' WHERE state = 'sending';
ALTER TABLE delivery DROP CONSTRAINT delivery_state_check;
ALTER TABLE delivery ADD CONSTRAINT delivery_state_check CHECK (state IN
    ('queued', 'claimed', 'accepted', 'rejected', 'uncertain', 'excluded', 'held'));

UPDATE delivery SET lease_until = NULL WHERE state <> 'claimed';
UPDATE delivery SET lease_until = now() WHERE state = 'claimed' AND lease_until IS NULL;
ALTER TABLE delivery ADD CONSTRAINT delivery_lease_check CHECK ((state = 'claimed') = (lease_until IS NOT NULL));

-- Not by state: an index that every change of it enters is what a claim and an outcome would mostly cost.
CREATE INDEX delivery_claimed ON delivery (claimed_by) WHERE lease_until IS NOT NULL;
DROP INDEX delivery_open;

-- An event is made from the row of the delivery, which is never deleted: to check it again is half of what an event costs.
ALTER TABLE event DROP CONSTRAINT event_delivery_id_fkey, DROP CONSTRAINT event_contact_id_fkey;
