-- What a fleet's upkeep (tiers/postgres/upkeep.py) has done: one row for each task, so that of many nodes one does it,
-- and goes on where it ended after a time without any.

CREATE TABLE zeekdb.kv_cache_upkeep (
    task text PRIMARY KEY,
    at timestamptz NOT NULL,        -- when it was done last
    done_until timestamptz,         -- of roll-ups: everything before is computed for good
    rows bigint NOT NULL DEFAULT 0, -- that the last one wrote, deleted or made
    more boolean NOT NULL DEFAULT false,  -- it stopped at its bound
    node text NOT NULL DEFAULT ''
) WITH (fillfactor = 50);

SELECT zeekdb.grant_roles();
