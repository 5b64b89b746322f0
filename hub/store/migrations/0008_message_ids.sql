-- depends: 0006_first_load

-- A mail's Message-ID is its delivery's signed token: it is read, not looked up.
ALTER TABLE delivery DROP COLUMN message_id;
