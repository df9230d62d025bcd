DROP TABLE zeekdb.kv_cache_writers;
