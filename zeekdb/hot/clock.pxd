# What the kernel's clocks say, for code that may hold no GIL.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <time.h>
    static inline long long zeek_clock_ns(clockid_t clock) {
        struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }
    #define zeek_steady_ns() zeek_clock_ns(CLOCK_MONOTONIC)
    #define zeek_steady_us() (zeek_clock_ns(CLOCK_MONOTONIC) / 1000)
    #define zeek_wall_us() (zeek_clock_ns(CLOCK_REALTIME) / 1000)
    """
    int64_t steady_ns "zeek_steady_ns"() nogil      # never set back: for spans; time.monotonic's
    int64_t steady_us "zeek_steady_us"() nogil
    int64_t wall_us "zeek_wall_us"() nogil          # Unix time
