-- Who read and wrote what, a partition for each day (UTC): a day is forgotten by dropping its table, which takes no
-- vacuum. Rows come in the order of their time, so that a BRIN index of some pages serves every "in the last hour".
--
-- The default partition takes what has no day yet (a node whose clock is wrong, upkeep that was late), so that a batch
-- never fails for it; `ensure_log_partitions` moves such rows to their day.

CREATE TABLE zeekdb.kv_cache_access_log (
    at timestamptz NOT NULL DEFAULT now(),
    request_id bigint NOT NULL DEFAULT 0,
    latency_us bigint NOT NULL,
    bytes bigint,              -- of the block; null: not known
    hit boolean NOT NULL,
    digest bytea NOT NULL,
    access_type text NOT NULL CHECK (access_type IN ('read', 'write', 'lookup', 'delete')),
    tier text NOT NULL,        -- that answered: gpu, host, ssd, warm, postgres, objects; none for a miss
    node text NOT NULL DEFAULT '',
    model bytea NOT NULL,
    salt bytea NOT NULL DEFAULT ''
) PARTITION BY RANGE (at);

CREATE INDEX kv_cache_access_log_at ON zeekdb.kv_cache_access_log USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX kv_cache_access_log_slow ON zeekdb.kv_cache_access_log (at) INCLUDE (tier, latency_us)
    WHERE latency_us >= 10000;

CREATE TABLE zeekdb.kv_cache_access_log_rest PARTITION OF zeekdb.kv_cache_access_log DEFAULT;

CREATE FUNCTION zeekdb.log_partition(day date) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 'kv_cache_access_log_' || to_char(day::timestamp, 'YYYYMMDD');

-- Makes the days' partitions that are not there; how many it made. A day is made beside the log and attached: that lets
-- the log be written meanwhile, where CREATE TABLE … PARTITION OF would stop it.
CREATE FUNCTION zeekdb.ensure_log_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    day date;
    part text;
    since timestamptz;
    until timestamptz;
    made integer := 0;
BEGIN
    IF last_day - first_day > 366 THEN
        RAISE EXCEPTION 'partitions for more than a year at once';
    END IF;
    FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        part := zeekdb.log_partition(day);
        CONTINUE WHEN to_regclass(format('zeekdb.%I', part)) IS NOT NULL;
        -- no row gets into the default partition from here on: none that belongs to the day is left behind there
        LOCK TABLE zeekdb.kv_cache_access_log_rest IN SHARE ROW EXCLUSIVE MODE;
        CONTINUE WHEN to_regclass(format('zeekdb.%I', part)) IS NOT NULL;  -- made by another one meanwhile
        since := day::timestamp AT TIME ZONE 'UTC';
        until := (day + 1)::timestamp AT TIME ZONE 'UTC';
        EXECUTE format('CREATE TABLE zeekdb.%I (LIKE zeekdb.kv_cache_access_log INCLUDING ALL)', part);
        EXECUTE format(
            'WITH moved AS (DELETE FROM zeekdb.kv_cache_access_log_rest WHERE at >= %L AND at < %L RETURNING *) '
            'INSERT INTO zeekdb.%I SELECT * FROM moved', since, until, part);
        EXECUTE format(
            'ALTER TABLE zeekdb.kv_cache_access_log ATTACH PARTITION zeekdb.%I FOR VALUES FROM (%L) TO (%L)',
            part, since, until);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the partitions of days before today - keep_days (UTC), `most` of them at a time; how many it dropped. Waits two
-- seconds at most for readers of the log, so that writers never queue behind it: who calls it calls again.
CREATE FUNCTION zeekdb.cleanup_old_access_logs(keep_days integer, today date, most integer DEFAULT 7) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    part record;
    dropped integer := 0;
    cut date := today - keep_days;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'the log is kept for a day at least';
    END IF;
    FOR part IN
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'zeekdb.kv_cache_access_log'::regclass
            AND c.relname ~ '^kv_cache_access_log_\d{8}$' AND c.relname < zeekdb.log_partition(cut)
        ORDER BY c.relname LIMIT most
    LOOP
        EXECUTE format('DROP TABLE zeekdb.%I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM zeekdb.kv_cache_access_log_rest WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM zeekdb.kv_cache_access_log_rest AS r WHERE r.at < cut::timestamp AT TIME ZONE 'UTC' LIMIT 10000));
    RETURN dropped;
END $$;

CREATE FUNCTION zeekdb.cleanup_old_access_logs(keep_days integer DEFAULT 7) RETURNS integer
LANGUAGE sql BEGIN ATOMIC
    SELECT zeekdb.cleanup_old_access_logs(keep_days, (now() AT TIME ZONE 'UTC')::date);
END;

-- These act with their owner's rights: zeekdb_writer gets them, in 0007.
REVOKE EXECUTE ON FUNCTION zeekdb.ensure_log_partitions(date, date),
    zeekdb.cleanup_old_access_logs(integer, date, integer) FROM PUBLIC;

SELECT zeekdb.ensure_log_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 2);
