-- The roles themselves stay: they belong to the cluster, and other databases of it may use them.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'zeekdb' LOOP
        EXECUTE format('DROP POLICY %I ON zeekdb.%I', held.policyname, held.tablename);
    END LOOP;
    FOR held IN SELECT relname FROM pg_class WHERE relnamespace = 'zeekdb'::regnamespace AND relrowsecurity LOOP
        EXECUTE format('ALTER TABLE zeekdb.%I DISABLE ROW LEVEL SECURITY', held.relname);
    END LOOP;
    FOR held IN SELECT rolname FROM pg_roles WHERE rolname IN ('zeekdb_writer', 'zeekdb_reader', 'zeekdb_tenant') LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA zeekdb FROM %I', held.rolname);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA zeekdb FROM %I', held.rolname);
        EXECUTE format('REVOKE ALL ON SCHEMA zeekdb FROM %I', held.rolname);
    END LOOP;
END $$;
DROP FUNCTION zeekdb.tenant(bytea, bytea);
DROP FUNCTION zeekdb.grant_roles();
DROP TABLE zeekdb.kv_cache_tenants;
