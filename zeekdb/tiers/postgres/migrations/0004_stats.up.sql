-- Reads, writes, hits, misses, bytes and percentiles of latency for each minute, hour and day (UTC), model and tier.
--
-- The truth is the log: a bucket is computed from all its rows whenever they are there (`source` is 'log', percentiles
-- are percentile_disc, that is a latency that was seen). An hour or a day whose log is gone, or is longer than
-- `exact_rows_max` so that sorting it would hold a transaction open for minutes, is merged from the next finer buckets
-- (`source` is 'merged'): counts are sums, and percentiles come from the sum of their histograms. Percentiles themselves
-- cannot be merged: a mean of p99s is the p99 of nothing.
--
-- The histogram is log-linear (as HDR's): 8 slots for each power of two, so that what it says of a latency is within
-- 1/16 of it. It is a JSON object {slot: count} and has only the slots that are not empty.

CREATE TABLE zeekdb.kv_cache_stats (
    bucket text NOT NULL CHECK (bucket IN ('minute', 'hour', 'day')),
    at timestamptz NOT NULL,                -- its beginning
    tier text NOT NULL,
    model_digest bytea NOT NULL GENERATED ALWAYS AS (substr(sha256(model), 1, 16)) STORED,  -- a name may be too long
    model bytea NOT NULL,
    model_text text COLLATE "C" NOT NULL GENERATED ALWAYS AS (encode(substr(model, 1, 200), 'escape')) STORED,
    reads bigint NOT NULL,
    writes bigint NOT NULL,
    lookups bigint NOT NULL,
    deletes bigint NOT NULL,
    hits bigint NOT NULL,                   -- of reads and lookups
    misses bigint NOT NULL,
    bytes bigint NOT NULL,                  -- that went over: of hits and writes
    latency_sum_us numeric NOT NULL,        -- of all accesses
    p50_us bigint NOT NULL,                 -- of all accesses
    p95_us bigint NOT NULL,
    p99_us bigint NOT NULL,
    latencies jsonb NOT NULL,
    source text NOT NULL CHECK (source IN ('log', 'merged')),
    PRIMARY KEY (bucket, at, tier, model_digest)
) WITH (fillfactor = 85);
CREATE INDEX kv_cache_stats_model ON zeekdb.kv_cache_stats (bucket, model_text, at DESC);

CREATE FUNCTION zeekdb.latency_slot(us bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    CASE WHEN us < 8 THEN greatest(us, 0)::integer
    ELSE (length(ltrim(us::bit(64)::text, '0')) - 1) * 8
        + ((us >> (length(ltrim(us::bit(64)::text, '0')) - 4)) & 7)::integer END;

-- The middle of a slot, µs.
CREATE FUNCTION zeekdb.slot_latency(slot integer) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    CASE WHEN slot < 8 THEN slot::bigint
    ELSE ((8 + slot % 8)::bigint << (slot / 8 - 3)) + ((1::bigint << (slot / 8 - 3)) >> 1) END;

CREATE FUNCTION zeekdb.stats_from_log(of_bucket text, since timestamptz, until timestamptz)
RETURNS SETOF zeekdb.kv_cache_stats
LANGUAGE sql STABLE BEGIN ATOMIC
    -- Latencies repeat: one pass over the log counts each of them, the rest works on these counts. Sorting the log's rows
    -- for percentile_disc, which this is to the letter, took twice as long.
    WITH counted AS MATERIALIZED (
        SELECT date_trunc(of_bucket, l.at, 'UTC') AS at, l.tier, l.model, l.latency_us, count(*) AS n,
            count(*) FILTER (WHERE l.access_type = 'read') AS reads,
            count(*) FILTER (WHERE l.access_type = 'write') AS writes,
            count(*) FILTER (WHERE l.access_type = 'lookup') AS lookups,
            count(*) FILTER (WHERE l.access_type = 'delete') AS deletes,
            count(*) FILTER (WHERE l.hit AND l.access_type IN ('read', 'lookup')) AS hits,
            count(*) FILTER (WHERE NOT l.hit AND l.access_type IN ('read', 'lookup')) AS misses,
            sum(l.bytes) FILTER (WHERE l.access_type = 'write' OR l.hit AND l.access_type = 'read') AS bytes
        FROM zeekdb.kv_cache_access_log AS l
        WHERE l.at >= since AND l.at < until
        GROUP BY date_trunc(of_bucket, l.at, 'UTC'), l.tier, l.model, l.latency_us
    ), ranked AS (
        SELECT c.*, sum(c.n) OVER (PARTITION BY c.at, c.tier, c.model ORDER BY c.latency_us) AS upto,
            sum(c.n) OVER (PARTITION BY c.at, c.tier, c.model) AS total
        FROM counted AS c
    ), summed AS (
        SELECT r.at, r.tier, r.model, sum(r.reads)::bigint AS reads, sum(r.writes)::bigint AS writes,
            sum(r.lookups)::bigint AS lookups, sum(r.deletes)::bigint AS deletes, sum(r.hits)::bigint AS hits,
            sum(r.misses)::bigint AS misses, coalesce(sum(r.bytes), 0)::bigint AS bytes,
            sum(r.latency_us * r.n) AS latency_sum_us,
            min(r.latency_us) FILTER (WHERE r.upto >= 0.5 * r.total) AS p50,
            min(r.latency_us) FILTER (WHERE r.upto >= 0.95 * r.total) AS p95,
            min(r.latency_us) FILTER (WHERE r.upto >= 0.99 * r.total) AS p99
        FROM ranked AS r GROUP BY r.at, r.tier, r.model
    ), slotted AS (
        SELECT c.at, c.tier, c.model, zeekdb.latency_slot(c.latency_us) AS slot, sum(c.n)::bigint AS n FROM counted AS c
        GROUP BY c.at, c.tier, c.model, zeekdb.latency_slot(c.latency_us)
    ), spread AS (
        SELECT s.at, s.tier, s.model, jsonb_object_agg(s.slot, s.n) AS latencies FROM slotted AS s
        GROUP BY s.at, s.tier, s.model
    )
    SELECT of_bucket, s.at, s.tier, NULL::bytea, s.model, NULL::text, s.reads, s.writes, s.lookups, s.deletes, s.hits,
        s.misses, s.bytes, s.latency_sum_us, s.p50, s.p95, s.p99, h.latencies, 'log'
    FROM summed AS s JOIN spread AS h ON (h.at, h.tier, h.model) = (s.at, s.tier, s.model);
END;

CREATE FUNCTION zeekdb.stats_merged(of_bucket text, since timestamptz, until timestamptz)
RETURNS SETOF zeekdb.kv_cache_stats
LANGUAGE sql STABLE BEGIN ATOMIC
    WITH parts AS (
        SELECT date_trunc(of_bucket, f.at, 'UTC') AS slot_at, f.* FROM zeekdb.kv_cache_stats AS f
        WHERE f.bucket = CASE of_bucket WHEN 'day' THEN 'hour' ELSE 'minute' END AND f.at >= since AND f.at < until
    ), counted AS (
        SELECT p.slot_at, p.tier, p.model, e.key::integer AS slot, sum(e.value::bigint)::bigint AS n
        FROM parts AS p CROSS JOIN LATERAL jsonb_each_text(p.latencies) AS e
        GROUP BY p.slot_at, p.tier, p.model, e.key::integer
    ), ranked AS (
        SELECT c.*, sum(c.n) OVER (PARTITION BY c.slot_at, c.tier, c.model ORDER BY c.slot) AS upto,
            sum(c.n) OVER (PARTITION BY c.slot_at, c.tier, c.model) AS total
        FROM counted AS c
    ), spread AS (
        SELECT r.slot_at, r.tier, r.model, jsonb_object_agg(r.slot, r.n) AS latencies,
            zeekdb.slot_latency(min(r.slot) FILTER (WHERE r.upto >= 0.5 * r.total)) AS p50,
            zeekdb.slot_latency(min(r.slot) FILTER (WHERE r.upto >= 0.95 * r.total)) AS p95,
            zeekdb.slot_latency(min(r.slot) FILTER (WHERE r.upto >= 0.99 * r.total)) AS p99
        FROM ranked AS r GROUP BY r.slot_at, r.tier, r.model
    ), summed AS (
        SELECT p.slot_at, p.tier, p.model, sum(p.reads)::bigint AS reads, sum(p.writes)::bigint AS writes,
            sum(p.lookups)::bigint AS lookups, sum(p.deletes)::bigint AS deletes, sum(p.hits)::bigint AS hits,
            sum(p.misses)::bigint AS misses, sum(p.bytes)::bigint AS bytes, sum(p.latency_sum_us) AS latency_sum_us
        FROM parts AS p GROUP BY p.slot_at, p.tier, p.model
    )
    SELECT of_bucket, s.slot_at, s.tier, NULL::bytea, s.model, NULL::text, s.reads, s.writes, s.lookups, s.deletes,
        s.hits, s.misses, s.bytes, s.latency_sum_us, h.p50, h.p95, h.p99, h.latencies, 'merged'
    FROM summed AS s JOIN spread AS h ON (h.slot_at, h.tier, h.model) = (s.slot_at, s.tier, s.model);
END;

-- Whether the log of the time is still there: its days are dropped whole, and no bucket lies in two of them.
CREATE FUNCTION zeekdb.log_covers(since timestamptz) RETURNS boolean
LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT to_regclass('zeekdb.' || zeekdb.log_partition((since AT TIME ZONE 'UTC')::date)) IS NOT NULL;
END;

-- Computes the buckets that [since, until) touches, anew; how many rows it wrote. Harmless when repeated. A bucket for
-- which there is neither log nor finer statistics stays what it is.
CREATE FUNCTION zeekdb.aggregate_cache_stats(
    of_bucket text, since timestamptz, until timestamptz, exact_rows_max bigint DEFAULT 5000000
) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    step interval := ('1 ' || of_bucket)::interval;
    lower_at timestamptz := date_trunc(of_bucket, since, 'UTC');
    upper_at timestamptz;
    exact boolean;
    wrote integer := 0;
    these integer;
BEGIN
    IF of_bucket NOT IN ('minute', 'hour', 'day') THEN
        RAISE EXCEPTION 'no such bucket: %', of_bucket;
    END IF;
    WHILE lower_at < until LOOP
        -- minutes go an hour at a time: a transaction is a bucket or an hour long, never longer
        upper_at := CASE of_bucket WHEN 'minute' THEN least(lower_at + interval '1 hour', until) ELSE lower_at + step END;
        IF of_bucket = 'minute' THEN
            upper_at := date_trunc('minute', upper_at + interval '59.999999 s', 'UTC');
            exact := true;
        ELSE
            exact := zeekdb.log_covers(lower_at) AND coalesce((
                SELECT sum(f.reads + f.writes + f.lookups + f.deletes) FROM zeekdb.kv_cache_stats AS f
                WHERE f.bucket = CASE of_bucket WHEN 'day' THEN 'hour' ELSE 'minute' END
                    AND f.at >= lower_at AND f.at < upper_at), 0) <= exact_rows_max;
        END IF;
        INSERT INTO zeekdb.kv_cache_stats AS s (
            bucket, at, tier, model, reads, writes, lookups, deletes, hits, misses, bytes, latency_sum_us,
            p50_us, p95_us, p99_us, latencies, source
        )
        SELECT n.bucket, n.at, n.tier, n.model, n.reads, n.writes, n.lookups, n.deletes, n.hits, n.misses, n.bytes,
            n.latency_sum_us, n.p50_us, n.p95_us, n.p99_us, n.latencies, n.source
        FROM (
            SELECT * FROM zeekdb.stats_from_log(of_bucket, lower_at, upper_at) WHERE exact
            UNION ALL SELECT * FROM zeekdb.stats_merged(of_bucket, lower_at, upper_at) WHERE NOT exact
        ) AS n
        ORDER BY n.at, n.tier, n.model
        ON CONFLICT (bucket, at, tier, model_digest) DO UPDATE SET
            reads = EXCLUDED.reads, writes = EXCLUDED.writes, lookups = EXCLUDED.lookups, deletes = EXCLUDED.deletes,
            hits = EXCLUDED.hits, misses = EXCLUDED.misses, bytes = EXCLUDED.bytes,
            latency_sum_us = EXCLUDED.latency_sum_us, p50_us = EXCLUDED.p50_us, p95_us = EXCLUDED.p95_us,
            p99_us = EXCLUDED.p99_us, latencies = EXCLUDED.latencies, source = EXCLUDED.source
            WHERE s.source = 'merged' OR EXCLUDED.source = 'log'  -- what was exact stays so, unless the merged has seen more
                OR s.reads + s.writes + s.lookups + s.deletes
                    < EXCLUDED.reads + EXCLUDED.writes + EXCLUDED.lookups + EXCLUDED.deletes;
        GET DIAGNOSTICS these = ROW_COUNT;
        wrote := wrote + these;
        lower_at := upper_at;
    END LOOP;
    RETURN wrote;
END $$;
