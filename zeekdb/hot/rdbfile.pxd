# What stands in an RDB file around its values: the frame, and the bytes that say something other than a value's type.
# Source: Redis's rdb.h.
cdef enum:
    MAGIC = 9                # bytes: REDIS and four digits
    CHECKED_SINCE = 5        # the version that brought the checksum
    CHECKSUM = 8             # bytes of it
    OP_SLOTS = 0xF4
    OP_FUNCTION = 0xF5
    OP_MODULE_AUX = 0xF7
    OP_IDLE = 0xF8           # the next key's, in seconds
    OP_FREQUENCY = 0xF9      # the next key's counter of LFU
    OP_AUX = 0xFA
    OP_SIZES = 0xFB
    OP_EXPIRE_MS = 0xFC      # the next key's deadline
    OP_EXPIRE_S = 0xFD
    OP_SELECT_DB = 0xFE
    OP_END = 0xFF
