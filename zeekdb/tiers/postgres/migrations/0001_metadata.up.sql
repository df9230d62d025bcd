-- What each block is and where it lies. One row for a name (model, salt, key), under the digest of that name.
--
-- Names are what clients say: any bytes, 16 KiB and more. A btree entry holds a third of a page at most, so that no name
-- is ever indexed whole: blocks are found by digest, models by `model_text`, sequences by their first 200 bytes (and
-- whoever asks compares the whole, too).
--
-- An access changes access_count and accessed_at and nothing that is indexed, so that it is a HOT update: no index is
-- written, and the room that fillfactor leaves in the page takes the new version. `heat` is what the hot entries are
-- found by: the number of bits of access_count, which grows when the count doubles and not with each access.

CREATE TABLE zeekdb.kv_cache_metadata (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 16),  -- BLAKE2b-128 of the name, tiers/envelope.py
    created_at timestamptz NOT NULL DEFAULT now(),   -- when the name was first stored
    updated_at timestamptz NOT NULL DEFAULT now(),   -- when the bytes changed last
    accessed_at timestamptz NOT NULL DEFAULT now(),
    access_count bigint NOT NULL DEFAULT 0,
    size bigint NOT NULL CHECK (size >= 0),          -- bytes of the block as the region has it
    plain_size bigint NOT NULL DEFAULT 0,            -- before the model's codec; 0: the same as size
    stored_size bigint NOT NULL DEFAULT 0,           -- in the tier below; 0: in none yet
    checksum bigint NOT NULL,                        -- the 64 bits, read as a signed number
    deadline bigint NOT NULL DEFAULT 0,              -- unix seconds; 0: none
    version integer NOT NULL DEFAULT 1,              -- set by triggers: writers leave it out
    parent_version integer,                          -- the one it replaced
    layer_from integer NOT NULL DEFAULT 0,           -- layers layer_from … layer_to - 1
    layer_to integer NOT NULL DEFAULT 0,
    token_from bigint NOT NULL DEFAULT 0,            -- tokens token_from … token_to - 1 of the sequence
    token_to bigint NOT NULL DEFAULT 0,
    heat smallint NOT NULL GENERATED ALWAYS AS (length(ltrim(access_count::bit(64)::text, '0'))::smallint) STORED,
    ratio real GENERATED ALWAYS AS (
        CASE WHEN stored_size > 0 THEN
            (CASE WHEN plain_size > 0 THEN plain_size ELSE size END)::double precision / stored_size
        END
    ) STORED,
    model bytea NOT NULL,
    model_text text COLLATE "C" NOT NULL GENERATED ALWAYS AS (encode(substr(model, 1, 200), 'escape')) STORED,
    salt bytea NOT NULL DEFAULT '',
    key bytea NOT NULL,
    block_group bytea NOT NULL DEFAULT '',
    codec text NOT NULL DEFAULT 'raw',               -- of the region, before the tiers
    sequence bytea NOT NULL DEFAULT '',              -- the context that it was stored with
    parent bytea CHECK (octet_length(parent) = 16),  -- digest of the block before it
    compression text NOT NULL DEFAULT 'raw',         -- of the tier that has it
    levels text[] NOT NULL DEFAULT '{}',             -- shared tiers that have it: warm, postgres, objects
    storage_backend text NOT NULL DEFAULT '',        -- the lowest of them
    storage_key text NOT NULL DEFAULT '',            -- its name there
    node text NOT NULL DEFAULT '',                   -- who stored it
    vector_id uuid,                                  -- of its context, in Qdrant
    changed_by text NOT NULL DEFAULT '',             -- who stored these bytes, and why: the history shows it
    change_reason text NOT NULL DEFAULT '',
    metadata jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX kv_cache_metadata_model ON zeekdb.kv_cache_metadata (model_text, created_at DESC, digest);
CREATE INDEX kv_cache_metadata_created ON zeekdb.kv_cache_metadata (created_at DESC);
CREATE INDEX kv_cache_metadata_heat ON zeekdb.kv_cache_metadata (heat DESC) WHERE heat > 0;
CREATE INDEX kv_cache_metadata_tokens ON zeekdb.kv_cache_metadata (model_text, substr(sequence, 1, 200), token_from)
    INCLUDE (token_to, layer_from, layer_to) WHERE sequence <> '';
CREATE INDEX kv_cache_metadata_deadline ON zeekdb.kv_cache_metadata (deadline) WHERE deadline > 0;
CREATE INDEX kv_cache_metadata_json ON zeekdb.kv_cache_metadata USING gin (metadata jsonb_path_ops);

-- Accesses of many blocks at once. Rows are locked in one order, so that nodes that count the same blocks at the same
-- moment wait for each other instead of ending in a deadlock. A digest may come more than once.
CREATE FUNCTION zeekdb.update_cache_access(digests bytea[], counts bigint[], times timestamptz[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    touched integer;
BEGIN
    WITH told AS (
        SELECT each.digest, sum(each.count)::bigint AS count, max(each.at) AS at
        FROM unnest(digests, counts, times) AS each (digest, count, at)
        GROUP BY each.digest
    ), locked AS MATERIALIZED (
        SELECT m.digest, told.count, told.at
        FROM told JOIN zeekdb.kv_cache_metadata AS m USING (digest)
        ORDER BY m.digest
        FOR NO KEY UPDATE OF m
    )
    UPDATE zeekdb.kv_cache_metadata AS m
    SET access_count = m.access_count + locked.count, accessed_at = greatest(m.accessed_at, locked.at)
    FROM locked WHERE m.digest = locked.digest;
    GET DIAGNOSTICS touched = ROW_COUNT;
    RETURN touched;
END $$;

-- One access, for whoever asks by hand. False: there is no such block.
CREATE FUNCTION zeekdb.update_cache_access(digest bytea) RETURNS boolean
LANGUAGE sql BEGIN ATOMIC
    SELECT zeekdb.update_cache_access(ARRAY[digest], ARRAY[1::bigint], ARRAY[now()]) > 0;
END;
