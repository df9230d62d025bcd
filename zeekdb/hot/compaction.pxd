# Moves blocks so that pages empty. See compaction.pyx.
cdef bint compact_step() noexcept nogil             # some entries; False when there is nothing to move, by now
