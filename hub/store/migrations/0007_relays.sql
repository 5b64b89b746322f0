-- depends: 0006_first_load
-- How relays are, and what was asked of them: shared by all workers.

-- Whether a relay may be used, and what was learned of it.
CREATE TABLE relay_state (
    relay text PRIMARY KEY,
    state text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open')), -- of its circuit breaker
    reason text NOT NULL DEFAULT '',
    since timestamptz, -- hub time
    trips integer NOT NULL DEFAULT 0, -- how often it opened since it last worked
    next_probe_at timestamptz, -- database time
    probe_by text,
    probe_until timestamptz, -- database time: a prober that is gone by then is followed by another
    pipelining text CHECK (pipelining IN ('off', 'envelope', 'full'))
);

-- Mails offered, in grains of time. `scope` is '' for the relay itself, else a receiver; `span` a kind of window.
CREATE TABLE relay_use (
    relay text NOT NULL,
    scope text NOT NULL,
    span text NOT NULL,
    at timestamptz NOT NULL, -- hub time, beginning of the grain
    used bigint NOT NULL,
    PRIMARY KEY (relay, scope, span, at)
);

-- Places that a worker holds in all windows of a scope and has not used yet. What a lapsed holder held counts as used.
CREATE TABLE relay_hold (
    relay text NOT NULL,
    scope text NOT NULL,
    holder text NOT NULL,
    held bigint NOT NULL,
    lease_until timestamptz NOT NULL, -- database time
    PRIMARY KEY (relay, scope, holder)
);

-- Receivers that asked for less, so that a restart does not forget it; `receiver` is '' for the relay itself.
CREATE TABLE relay_slow (
    relay text NOT NULL,
    receiver text NOT NULL,
    per_second double precision NOT NULL,
    free_at double precision NOT NULL, -- the rate at which it counts as slowed no more
    reason text NOT NULL,
    since timestamptz NOT NULL, -- hub time
    changed_at timestamptz NOT NULL, -- hub time
    PRIMARY KEY (relay, receiver)
);
