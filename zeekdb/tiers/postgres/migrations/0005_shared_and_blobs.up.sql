-- Prefixes that several contexts have in common, with the nodes that refer to them, and the cold blocks themselves.

CREATE TABLE zeekdb.kv_cache_shared (
    digest bytea NOT NULL CHECK (octet_length(digest) = 16),  -- of the prefix's last block
    node text NOT NULL,                                       -- an owner
    refs bigint NOT NULL DEFAULT 0 CHECK (refs >= 0),         -- contexts of this node that have it
    first_at timestamptz NOT NULL DEFAULT now(),
    at timestamptz NOT NULL DEFAULT now(),
    model bytea NOT NULL,
    salt bytea NOT NULL DEFAULT '',
    PRIMARY KEY (digest, node)
) WITH (fillfactor = 85);
CREATE INDEX kv_cache_shared_node ON zeekdb.kv_cache_shared (node);

-- One current version for each name: a put of another checksum replaces the row. The header (tiers/envelope.py) is what
-- a reader verifies the bytes by; model and salt stand beside it for the policies.
CREATE TABLE zeekdb.kv_cache_blobs (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 16),
    stored_at timestamptz NOT NULL DEFAULT now(),
    checksum bigint NOT NULL,              -- of the block, read as a signed number
    size bigint NOT NULL,                  -- of the payload
    deadline bigint NOT NULL DEFAULT 0,    -- unix seconds; 0: none
    model bytea NOT NULL,
    salt bytea NOT NULL DEFAULT '',
    header bytea NOT NULL,
    payload bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
-- The payload is compressed, or not worth compressing, before it comes here.
ALTER TABLE zeekdb.kv_cache_blobs ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX kv_cache_blobs_deadline ON zeekdb.kv_cache_blobs (deadline) WHERE deadline > 0;
CREATE INDEX kv_cache_blobs_stored ON zeekdb.kv_cache_blobs USING brin (stored_at);
