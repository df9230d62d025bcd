-- What people look at, and what a server warms itself with. Views show a reader with a tenant (0007) only its rows.

-- `zeekdb.tenant` is '' or hex of the model, a colon, hex of the salt.
CREATE FUNCTION zeekdb.may_see(of_model bytea, of_salt bytea) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE RETURN
    coalesce(current_setting('zeekdb.tenant', true), '') = ''
    OR current_setting('zeekdb.tenant', true) = encode(of_model, 'hex') || ':' || encode(of_salt, 'hex');

CREATE VIEW zeekdb.recent_cache_entries WITH (security_barrier) AS
SELECT * FROM zeekdb.kv_cache_metadata AS m
WHERE m.created_at > now() - interval '1 day' AND zeekdb.may_see(m.model, m.salt)
ORDER BY m.created_at DESC;

-- More than 10 accesses, the most first. Sorting by heat first changes nothing but lets the index bring the order.
CREATE VIEW zeekdb.hot_cache_entries WITH (security_barrier) AS
SELECT * FROM zeekdb.kv_cache_metadata AS m
WHERE m.heat >= 4 AND m.access_count > 10 AND zeekdb.may_see(m.model, m.salt)
ORDER BY m.heat DESC, m.access_count DESC;

-- Traffic of each model and tier, over all minutes, hours or days that are kept.
CREATE VIEW zeekdb.cache_stats_summary WITH (security_barrier) AS
SELECT s.bucket, s.model_text, s.model, s.tier, min(s.at) AS first_at, max(s.at) AS last_at,
    sum(s.reads) AS reads, sum(s.writes) AS writes, sum(s.lookups) AS lookups, sum(s.deletes) AS deletes,
    sum(s.hits) AS hits, sum(s.misses) AS misses,
    sum(s.hits)::double precision / nullif(sum(s.hits) + sum(s.misses), 0) AS hit_rate,
    sum(s.bytes) AS bytes,
    (sum(s.latency_sum_us) / nullif(sum(s.reads + s.writes + s.lookups + s.deletes), 0))::double precision AS mean_us,
    max(s.p99_us) AS worst_p99_us
FROM zeekdb.kv_cache_stats AS s
WHERE coalesce(current_setting('zeekdb.tenant', true), '') = ''
GROUP BY s.bucket, s.model_text, s.model, s.tier;

-- What a starting server loads first: of the 100,000 blocks accessed most that a shared tier has, the 10,000 with the
-- highest score, accesses over the hours since the last one.
CREATE MATERIALIZED VIEW zeekdb.popular_entries AS
SELECT row_number() OVER (ORDER BY scored.score DESC, scored.digest) AS rank, scored.*
FROM (
    SELECT m.digest, m.model, m.salt, m.key, m.size, m.checksum, m.deadline, m.block_group, m.codec, m.levels, m.node,
        m.access_count, m.accessed_at,
        m.access_count / (1 + greatest(extract(epoch FROM now() - m.accessed_at), 0)::double precision / 3600) AS score
    FROM (
        SELECT * FROM zeekdb.kv_cache_metadata AS h
        WHERE h.heat > 0 AND cardinality(h.levels) > 0
            AND (h.deadline = 0 OR h.deadline > extract(epoch FROM now()))
        ORDER BY h.heat DESC, h.access_count DESC LIMIT 100000
    ) AS m
    ORDER BY score DESC, m.digest LIMIT 10000
) AS scored;
CREATE UNIQUE INDEX popular_entries_digest ON zeekdb.popular_entries (digest);
CREATE INDEX popular_entries_rank ON zeekdb.popular_entries (rank);

-- Without keeping readers from it, unless it has never been filled.
CREATE FUNCTION zeekdb.refresh_popular_entries() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT relispopulated FROM pg_class WHERE oid = 'zeekdb.popular_entries'::regclass) THEN
        REFRESH MATERIALIZED VIEW CONCURRENTLY zeekdb.popular_entries;
    ELSE
        REFRESH MATERIALIZED VIEW zeekdb.popular_entries;
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION zeekdb.refresh_popular_entries() FROM PUBLIC;
