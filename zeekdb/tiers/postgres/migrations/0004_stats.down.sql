DROP FUNCTION zeekdb.aggregate_cache_stats(text, timestamptz, timestamptz, bigint);
DROP FUNCTION zeekdb.log_covers(timestamptz);
DROP FUNCTION zeekdb.stats_merged(text, timestamptz, timestamptz);
DROP FUNCTION zeekdb.stats_from_log(text, timestamptz, timestamptz);
DROP FUNCTION zeekdb.slot_latency(integer);
DROP FUNCTION zeekdb.latency_slot(bigint);
DROP TABLE zeekdb.kv_cache_stats;
