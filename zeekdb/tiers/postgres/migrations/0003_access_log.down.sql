DROP FUNCTION zeekdb.cleanup_old_access_logs(integer);
DROP FUNCTION zeekdb.cleanup_old_access_logs(integer, date, integer);
DROP FUNCTION zeekdb.ensure_log_partitions(date, date);
DROP FUNCTION zeekdb.log_partition(date);
DROP TABLE zeekdb.kv_cache_access_log;
