DROP FUNCTION zeekdb.refresh_popular_entries();
DROP MATERIALIZED VIEW zeekdb.popular_entries;
DROP VIEW zeekdb.cache_stats_summary;
DROP VIEW zeekdb.hot_cache_entries;
DROP VIEW zeekdb.recent_cache_entries;
DROP FUNCTION zeekdb.may_see(bytea, bytea);
