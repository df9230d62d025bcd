DROP TRIGGER create_version_history ON zeekdb.kv_cache_metadata;
DROP TRIGGER number_version_next ON zeekdb.kv_cache_metadata;
DROP TRIGGER number_version_first ON zeekdb.kv_cache_metadata;
DROP FUNCTION zeekdb.create_version_history();
DROP FUNCTION zeekdb.number_version();
DROP FUNCTION zeekdb.versions_kept();
DROP TABLE zeekdb.kv_cache_versions;
