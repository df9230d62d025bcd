-- Which batch of each writer is in: a batch whose COMMIT was cut off is sent again, and must not count twice.
--
-- A writer is one run of one server, its batches are numbered, and the number is written in the batch's transaction. The
-- row's lock also makes a batch that is sent again wait for the first try, should the server still be at it. The status
-- of a transaction's number (pg_xact_status) would need no table, but numbers of transactions that a crash has lost are
-- given out again, to others.

CREATE TABLE zeekdb.kv_cache_writers (
    writer text PRIMARY KEY,
    batch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

SELECT zeekdb.grant_roles();
