-- A row for each overwrite: what the block was, who replaced it, why and when; its bytes where they were kept.
--
-- Two triggers on the metadata write it, so that nobody can forget to: whoever stores other bytes under a name updates
-- checksum, size, changed_by and change_reason, and that is all. The history outlives the block (no foreign key), and
-- numbers go on where they ended when the name is stored again. It keeps `zeekdb.versions` of a block (a setting of the
-- session; 8 without one; 0: none is written).

CREATE TABLE zeekdb.kv_cache_versions (
    digest bytea NOT NULL CHECK (octet_length(digest) = 16),
    version integer NOT NULL,                    -- what the block was
    at timestamptz NOT NULL DEFAULT now(),       -- when it was replaced
    stored_at timestamptz,                       -- when it was stored
    size bigint NOT NULL,
    plain_size bigint NOT NULL DEFAULT 0,
    stored_size bigint NOT NULL DEFAULT 0,
    checksum bigint NOT NULL,
    deadline bigint NOT NULL DEFAULT 0,
    parent_version integer,
    model bytea NOT NULL,
    salt bytea NOT NULL DEFAULT '',
    key bytea NOT NULL,
    block_group bytea NOT NULL DEFAULT '',
    codec text NOT NULL DEFAULT 'raw',
    who text NOT NULL DEFAULT '',                -- who replaced it
    why text NOT NULL DEFAULT '',
    metadata jsonb NOT NULL DEFAULT '{}',
    snapshot_coding text,                        -- of the snapshot's bytes: raw or zstd
    snapshot bytea,                              -- the bytes; null where they were not kept
    PRIMARY KEY (digest, version)
);
-- What is stored compressed already is not worth trying again, and a slice of it is read without the rest.
ALTER TABLE zeekdb.kv_cache_versions ALTER COLUMN snapshot SET STORAGE EXTERNAL;
CREATE INDEX kv_cache_versions_at ON zeekdb.kv_cache_versions USING brin (at);

CREATE FUNCTION zeekdb.versions_kept() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE RETURN coalesce(nullif(current_setting('zeekdb.versions', true), ''), '8')::integer;

CREATE FUNCTION zeekdb.number_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT max(v.version) INTO NEW.parent_version FROM zeekdb.kv_cache_versions AS v WHERE v.digest = NEW.digest;
        NEW.version := coalesce(NEW.parent_version, 0) + 1;
    ELSIF NEW.checksum IS DISTINCT FROM OLD.checksum THEN
        NEW.version := OLD.version + 1;
        NEW.parent_version := OLD.version;
        NEW.updated_at := greatest(NEW.updated_at, now());
    ELSE  -- an upsert of the same bytes brings the numbers of its INSERT: they mean nothing
        NEW.version := OLD.version;
        NEW.parent_version := OLD.parent_version;
        NEW.updated_at := OLD.updated_at;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION zeekdb.create_version_history() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept integer := zeekdb.versions_kept();
BEGIN
    IF kept <= 0 THEN
        RETURN NULL;
    END IF;
    INSERT INTO zeekdb.kv_cache_versions (
        digest, version, stored_at, size, plain_size, stored_size, checksum, deadline, parent_version,
        model, salt, key, block_group, codec, who, why, metadata
    ) VALUES (
        OLD.digest, OLD.version, OLD.updated_at, OLD.size, OLD.plain_size, OLD.stored_size, OLD.checksum, OLD.deadline,
        OLD.parent_version, OLD.model, OLD.salt, OLD.key, OLD.block_group, OLD.codec, NEW.changed_by, NEW.change_reason,
        OLD.metadata
    ) ON CONFLICT (digest, version) DO NOTHING;
    DELETE FROM zeekdb.kv_cache_versions AS v WHERE v.digest = OLD.digest AND v.version <= OLD.version - kept;
    RETURN NULL;
END $$;

CREATE TRIGGER number_version_first BEFORE INSERT ON zeekdb.kv_cache_metadata
    FOR EACH ROW EXECUTE FUNCTION zeekdb.number_version();
CREATE TRIGGER number_version_next BEFORE UPDATE ON zeekdb.kv_cache_metadata
    FOR EACH ROW WHEN (OLD.checksum <> NEW.checksum OR OLD.version <> NEW.version OR OLD.updated_at <> NEW.updated_at)
    EXECUTE FUNCTION zeekdb.number_version();
CREATE TRIGGER create_version_history AFTER UPDATE ON zeekdb.kv_cache_metadata
    FOR EACH ROW WHEN (OLD.checksum <> NEW.checksum) EXECUTE FUNCTION zeekdb.create_version_history();
