# The numbers of Redis's value types, as they stand before a value in a file or a payload. "Read" ones are no longer
# written by anybody.
cdef enum:
    RDB_VERSION = 10            # what is written: redis-server 7.0
    RDB_VERSION_MAX = 12        # what is read: redis-server 7.4
    RDB_STRING = 0
    RDB_LIST = 1                # read
    RDB_SET = 2
    RDB_ZSET = 3                # read: scores as text
    RDB_HASH = 4
    RDB_ZSET_2 = 5
    RDB_MODULE_2 = 7
    RDB_HASH_ZIPMAP = 9         # read
    RDB_LIST_ZIPLIST = 10       # read
    RDB_SET_INTSET = 11
    RDB_ZSET_ZIPLIST = 12       # read
    RDB_HASH_ZIPLIST = 13       # read
    RDB_LIST_QUICKLIST = 14     # read
    RDB_STREAM = 15             # read
    RDB_HASH_LISTPACK = 16
    RDB_ZSET_LISTPACK = 17
    RDB_LIST_QUICKLIST_2 = 18
    RDB_STREAM_2 = 19
    RDB_SET_LISTPACK = 20       # RDB 11: read
    RDB_STREAM_3 = 21           # RDB 11: read
    RDB_HASH_TTL_EARLY = 22     # 7.4's release candidates: read
    RDB_HASH_LISTPACK_TTL_EARLY = 23
    RDB_HASH_TTL = 24           # RDB 12
    RDB_HASH_LISTPACK_TTL = 25
