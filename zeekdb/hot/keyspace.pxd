# The keyspace, for the hot room: shards without Python (shards.pxd), and the C side of the Python doors.
from zeekdb.hot.shards cimport (
    Db, G, Globals, Shard, TypeOps, entry_string, ks_create, ks_deadline, ks_delete, ks_expire_at, ks_find,
    ks_prefetch_bucket, ks_prefetch_entry, ks_read, ks_set, ks_set_blob, register_type, shard_of, wrap_value,
)

cdef Db* db_pointer(object database) except NULL
