-- Who may do what. Three roles to be a member of, none of which can log in:
--
--     zeekdb_writer   what a server needs, when it is not the owner of the tables: all rows, to read and to write
--     zeekdb_reader   reads all rows; with the setting `zeekdb.tenant` those of one tenant (a model and a salt). Whoever
--                     can send SQL can change a setting: it narrows what a trusted program sees, it confines nobody.
--     zeekdb_tenant   reads the rows of the tenants that kv_cache_tenants gives to the role, and cannot change that
--
-- The owner of the tables is held back by no policy. Aggregates over tenants (statistics, the views, popular entries)
-- are not a tenant's to see. Partitions and the materialised view carry no policies, so nobody gets them directly but
-- the owner (and the writer, the latter).

CREATE TABLE zeekdb.kv_cache_tenants (
    role_name name NOT NULL,
    model bytea NOT NULL,
    salt bytea NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX kv_cache_tenants_key ON zeekdb.kv_cache_tenants (role_name, sha256(model), sha256(salt));

-- Makes the roles, their rights and the policies, as far as the caller may; what of it could not be is said in NOTICEs.
-- Harmless when repeated: run it again, as the owner, when an administrator has made the roles. A migration that adds a
-- table ends with it.
CREATE FUNCTION zeekdb.grant_roles() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    role_name text;
    relation text;
    policy record;
    rows_of_tenants text[] := ARRAY['kv_cache_metadata', 'kv_cache_versions', 'kv_cache_access_log', 'kv_cache_shared',
        'kv_cache_blobs'];
BEGIN
    FOREACH role_name IN ARRAY ARRAY['zeekdb_writer', 'zeekdb_reader', 'zeekdb_tenant'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role_name);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % is missing and % may not create it: have it created, then SELECT zeekdb.grant_roles()',
                    role_name, current_user;
            WHEN duplicate_object OR unique_violation THEN  -- another database of the cluster was migrated meanwhile
                NULL;
        END;
    END LOOP;

    FOREACH relation IN ARRAY rows_of_tenants || ARRAY['kv_cache_stats', 'kv_cache_tenants'] LOOP
        EXECUTE format('ALTER TABLE zeekdb.%I ENABLE ROW LEVEL SECURITY', relation);
    END LOOP;
    FOR policy IN SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'zeekdb' LOOP  -- made anew below
        EXECUTE format('DROP POLICY %I ON zeekdb.%I', policy.policyname, policy.tablename);
    END LOOP;

    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'zeekdb_writer') THEN
        GRANT USAGE ON SCHEMA zeekdb TO zeekdb_writer;
        FOR relation IN
            SELECT c.relname FROM pg_class AS c
            WHERE c.relnamespace = 'zeekdb'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND c.relname NOT IN ('schema_migrations', 'kv_cache_tenants')
        LOOP
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON zeekdb.%I TO zeekdb_writer', relation);
        END LOOP;
        GRANT SELECT ON zeekdb.schema_migrations, zeekdb.recent_cache_entries, zeekdb.hot_cache_entries,
            zeekdb.cache_stats_summary, zeekdb.popular_entries TO zeekdb_writer;
        GRANT EXECUTE ON FUNCTION zeekdb.ensure_log_partitions(date, date),
            zeekdb.cleanup_old_access_logs(integer, date, integer), zeekdb.refresh_popular_entries() TO zeekdb_writer;
        FOREACH relation IN ARRAY rows_of_tenants || ARRAY['kv_cache_stats'] LOOP
            EXECUTE format('CREATE POLICY %I ON zeekdb.%I TO zeekdb_writer USING (true) WITH CHECK (true)',
                relation || '_writer', relation);
        END LOOP;
    END IF;

    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'zeekdb_reader') THEN
        GRANT USAGE ON SCHEMA zeekdb TO zeekdb_reader;
        GRANT SELECT ON zeekdb.kv_cache_metadata, zeekdb.kv_cache_versions, zeekdb.kv_cache_access_log,
            zeekdb.kv_cache_stats, zeekdb.kv_cache_shared, zeekdb.kv_cache_blobs, zeekdb.schema_migrations,
            zeekdb.recent_cache_entries, zeekdb.hot_cache_entries, zeekdb.cache_stats_summary TO zeekdb_reader;
        FOREACH relation IN ARRAY rows_of_tenants LOOP
            EXECUTE format('CREATE POLICY %I ON zeekdb.%I FOR SELECT TO zeekdb_reader USING (zeekdb.may_see(model, salt))',
                relation || '_reader', relation);
        END LOOP;
        CREATE POLICY kv_cache_stats_reader ON zeekdb.kv_cache_stats FOR SELECT TO zeekdb_reader
            USING (coalesce(current_setting('zeekdb.tenant', true), '') = '');
    END IF;

    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'zeekdb_tenant') THEN
        GRANT USAGE ON SCHEMA zeekdb TO zeekdb_tenant;
        GRANT SELECT ON zeekdb.kv_cache_metadata, zeekdb.kv_cache_versions, zeekdb.kv_cache_access_log,
            zeekdb.kv_cache_shared, zeekdb.kv_cache_blobs, zeekdb.kv_cache_tenants TO zeekdb_tenant;
        FOREACH relation IN ARRAY rows_of_tenants LOOP
            EXECUTE format('CREATE POLICY %I ON zeekdb.%I FOR SELECT TO zeekdb_tenant USING (EXISTS (SELECT FROM '
                'zeekdb.kv_cache_tenants AS t WHERE t.role_name = current_user AND t.model = %I.model '
                'AND t.salt = %I.salt))', relation || '_tenant', relation, relation, relation);
        END LOOP;
        CREATE POLICY kv_cache_tenants_tenant ON zeekdb.kv_cache_tenants FOR SELECT TO zeekdb_tenant
            USING (role_name = current_user);
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION zeekdb.grant_roles() FROM PUBLIC;

-- For one session or, as `ALTER ROLE … SET zeekdb.tenant`, for a role: whose rows a reader wants to see.
CREATE FUNCTION zeekdb.tenant(model bytea, salt bytea DEFAULT '') RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN encode(model, 'hex') || ':' || encode(salt, 'hex');

SELECT zeekdb.grant_roles();
