DROP FUNCTION zeekdb.update_cache_access(bytea);
DROP FUNCTION zeekdb.update_cache_access(bytea[], bigint[], timestamptz[]);
DROP TABLE zeekdb.kv_cache_metadata;
