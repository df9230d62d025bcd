DROP TABLE zeekdb.kv_cache_blobs;
DROP TABLE zeekdb.kv_cache_shared;
