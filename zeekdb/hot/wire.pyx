"""RESP on the way out, and the numbers that RESP and strings share."""

from libc.math cimport isinf, isnan
from libc.stdio cimport snprintf
from libc.stdlib cimport atoi, strtod
from libc.string cimport memcpy, memset
from zeekdb.hot.memory cimport blob_release, blob_retain, mem_alloc, mem_resize

cdef extern from *:
    """
    #include <errno.h>
    #include <stdlib.h>
    /* In C: an assignment to errno in Cython makes a variable of that name. */
    static double strtod_ranged(const char *text, char **end, int *out_of_range) {
        errno = 0;
        double value = strtod(text, end);
        *out_of_range = errno == ERANGE;
        return value;
    }
    static const char ZDIGITS[201] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    """
    double strtod_ranged(const char* text, char** end, int* out_of_range) nogil
    const char* ZDIGITS


cdef void out_grow(Out* out, size_t need) noexcept nogil:
    cdef size_t capacity = out.capacity * 2 if out.capacity else 4096
    if capacity < out.size + need:
        capacity = out.size + need
    out.data = <uint8_t*>mem_resize(out.data, out.capacity, capacity)
    out.capacity = capacity


cdef void out_blob(Out* out, Blob* blob) noexcept nogil:
    out_length(out, 36, blob.size)
    out_span(out, blob, 0, blob.size)
    out_raw(out, b"\r\n", 2)


cdef void out_span(Out* out, Blob* blob, size_t begin, size_t end) noexcept nogil:
    cdef Part* part
    cdef uint32_t capacity
    if end - begin < PART_MIN:
        out_raw(out, <const char*>blob.data + begin, end - begin)
        return
    if out.nparts == out.parts_capacity:
        capacity = out.parts_capacity * 2 if out.parts_capacity else 4
        out.parts = <Part*>mem_resize(out.parts, out.parts_capacity * sizeof(Part), capacity * sizeof(Part))
        out.parts_capacity = capacity
    part = &out.parts[out.nparts]
    part.at = out.size
    part.blob = blob_retain(blob)
    part.sent = begin
    part.end = end
    out.nparts += 1
    out.part_bytes += end - begin


cdef size_t format_int(uint8_t* at, int64_t value) noexcept nogil:
    cdef uint8_t text[24]
    cdef uint8_t* end = text + 24
    cdef uint8_t* p = end
    cdef uint64_t left = <uint64_t>value if value >= 0 else (~<uint64_t>value) + 1
    cdef uint64_t pair
    while left >= 100:
        pair = (left % 100) * 2
        left //= 100
        p -= 2
        memcpy(p, ZDIGITS + pair, 2)
    if left >= 10:
        p -= 2
        memcpy(p, ZDIGITS + left * 2, 2)
    else:
        p -= 1
        p[0] = 48 + <uint8_t>left
    if value < 0:
        p -= 1
        p[0] = 45
    memcpy(at, p, end - p)
    return end - p


cdef bint parse_int(const uint8_t* p, size_t n, int64_t* value) noexcept nogil:
    cdef uint64_t v
    cdef size_t i = 0
    cdef bint negative = False
    cdef uint8_t d
    if n == 0 or n > 20:
        return False
    if n == 1 and p[0] == 48:
        value[0] = 0
        return True
    if p[0] == 45:
        negative = True
        i = 1
        if n == 1:
            return False
    if p[i] < 49 or p[i] > 57:
        return False
    v = p[i] - 48
    i += 1
    while i < n:
        d = p[i] - 48
        if d > 9 or v > 1844674407370955161ULL:
            return False
        v *= 10
        if v > 18446744073709551615ULL - d:
            return False
        v += d
        i += 1
    if negative:
        if v > 9223372036854775808ULL:
            return False
        value[0] = <int64_t>(~v + 1)
    else:
        if v > 9223372036854775807ULL:
            return False
        value[0] = <int64_t>v
    return True


cdef double[16] TENS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]
cdef double SUBNORMAL = 2.3e-308  # below, fewer digits may do
cdef int[8] PLACES = [1, 2, 3, 4, 6, 8, 11, 15]


cdef int few_digits(double value, char* digits, int* exponent) noexcept nogil:
    """The digits of a positive number that has at most fifteen, the first of which counts 10^exponent; 0 for any other.

    A whole number below 10^15 over a power of ten up to 10^15 is one correctly rounded division of exact numbers
    (Clinger 1990), so that equality proves the digits; and no two decimals so short read as the same double.
    """
    cdef uint64_t whole
    cdef double scaled
    cdef int i, count
    for i in range(8):
        scaled = value * TENS[PLACES[i]]
        if scaled >= 1e15:
            return 0
        whole = <uint64_t>(scaled + 0.5)
        if <double>whole / TENS[PLACES[i]] == value:
            count = <int>format_int(<uint8_t*>digits, <int64_t>whole)
            exponent[0] = count - 1 - PLACES[i]
            while count > 1 and digits[count - 1] == 48:
                count -= 1
            return count
    return 0


cdef size_t spell_double(uint8_t* at, double value) noexcept nogil:
    cdef char text[40]
    cdef int n
    if not -9e18 < value < 9e18 or <double>(<int64_t>value) == value:  # large, whole, or no number at all
        return format_double(at, value)
    n = put_few(at, value)
    if n == 0:
        n = snprintf(text, 40, b"%.17g", value)
        memcpy(at, text, n)
    return n


cdef inline int put_few(uint8_t* at, double value) noexcept nogil:
    """A number of up to fifteen digits; 0 and nothing else is written for any other."""
    cdef char digits[24]
    cdef int exponent, count = few_digits(value if value > 0 else -value, digits, &exponent)
    cdef int sign = 1 if value < 0 else 0
    if count == 0:
        return 0
    at[0] = 45
    return sign + <int>place_digits(at + sign, digits, count, exponent)


cdef bint next_up(char* text, double value) noexcept nogil:
    """printf rounds a tie to even; at a power of two only the other neighbour may read back the same."""
    cdef int last = 0
    while text[last + 1] != 101:  # e
        last += 1
    if not 48 <= text[last] <= 56:
        return False
    text[last] += 1
    return strtod(text, NULL) == value


cdef size_t format_double(uint8_t* at, double value) noexcept nogil:
    """The shortest digits that read back the same, placed as Redis 7.2 does (`d2string`, fpconv's emit_digits)."""
    cdef char text[40]
    cdef int precision, exponent, n, count = 0
    cdef char digits[20]
    if value != value:
        memcpy(at, b"nan", 3)
        return 3
    if value > 1.7976931348623157e308 or value < -1.7976931348623157e308:
        memcpy(at, b"inf" if value > 0 else b"-inf", 3 if value > 0 else 4)
        return 3 if value > 0 else 4
    if value == 0:
        memcpy(at, b"-0" if 1.0 / value < 0 else b"0", 2)
        return 2 if 1.0 / value < 0 else 1
    if -4611686018427387904.0 < value < 4611686018427387904.0 and <double>(<int64_t>value) == value:
        return format_int(at, <int64_t>value)
    n = put_few(at, value)
    if n:
        return n
    for precision in range(14 if value > SUBNORMAL or value < -SUBNORMAL else 0, 17):
        n = snprintf(text, 40, b"%.*e", precision, value)
        if strtod(text, NULL) == value or next_up(text, value):
            break
    for n in range(n):  # [-]d.ddde[+-]xx
        if text[n] == 101:
            break
        if 48 <= text[n] <= 57:
            digits[count] = text[n]
            count += 1
    exponent = atoi(text + n + 1)
    while count > 1 and digits[count - 1] == 48:
        count -= 1
    n = 0
    if value < 0:
        at[0] = 45
        n = 1
    return n + place_digits(at + n, digits, count, exponent)


cdef size_t place_digits(uint8_t* at, const char* digits, int count, int exponent) noexcept nogil:
    """Digits d.ddd times ten to the exponent: plain where that is short, scientific otherwise."""
    cdef int power = exponent - count + 1, point, n
    if power >= 0 and exponent < count + 7:
        memcpy(at, digits, count)
        memset(at + count, 48, power)
        return count + power
    if power < 0 and (power > -7 or -4 < exponent < 4):
        point = count + power
        if point > 0:
            memcpy(at, digits, point)
            at[point] = 46
            memcpy(at + point + 1, digits + point, count - point)
            return count + 1
        at[0] = 48
        at[1] = 46
        memset(at + 2, 48, -point)
        memcpy(at + 2 - point, digits, count)
        return count + 2 - point
    at[0] = digits[0]
    n = 1
    if count > 1:
        at[1] = 46
        memcpy(at + 2, digits + 1, count - 1)
        n = count + 1
    return n + snprintf(<char*>at + n, 8, b"e%+d", exponent)


cdef bint parse_double(const uint8_t* p, size_t n, double* value) noexcept nogil:
    cdef char text[256]
    cdef char* end
    cdef int out_of_range
    if n == 0 or n > 255 or p[0] == 32 or (9 <= p[0] <= 13):
        return False
    memcpy(text, p, n)
    text[n] = 0
    value[0] = strtod_ranged(text, &end, &out_of_range)
    if out_of_range and (value[0] == 0 or isinf(value[0])):
        return False
    return end == text + n and not isnan(value[0])


# ---------------------------------------------------------------- sending


cdef size_t fill_vectors(Out* out, iovec* vectors, size_t most) noexcept nogil:
    """The next pieces to send, small bytes and parts in their order, of large values `most` bytes; how many."""
    cdef size_t at = out.sent, n = 0, size
    cdef uint32_t i = out.first_part
    cdef Part* part
    while n + 2 <= IOVECS and most:
        if i == out.nparts:
            if at < out.size:
                vectors[n].iov_base = out.data + at
                vectors[n].iov_len = out.size - at
                n += 1
            break
        part = &out.parts[i]
        if part.at > at:
            vectors[n].iov_base = out.data + at
            vectors[n].iov_len = part.at - at
            n += 1
            at = part.at
        size = min(part.end - part.sent, most)
        vectors[n].iov_base = part.blob.data + part.sent
        vectors[n].iov_len = size
        n += 1
        i += 1
        most -= size
    return n


cdef void advance(Out* out, size_t n) noexcept nogil:
    """Books n bytes as sent and lets go of the parts that are through."""
    cdef Part* part
    cdef size_t step
    while n:
        if out.first_part == out.nparts:
            out.sent += n
            return
        part = &out.parts[out.first_part]
        if out.sent < part.at:
            step = part.at - out.sent
            if step > n:
                step = n
            out.sent += step
            n -= step
            continue
        step = part.end - part.sent
        if step > n:
            step = n
        part.sent += step
        out.part_bytes -= step
        n -= step
        if part.sent == part.end:
            blob_release(part.blob)
            out.first_part += 1


cdef void shift_parts(Out* out) noexcept nogil:
    """The small bytes sent are dropped: parts stand that much nearer to the begin."""
    cdef uint32_t i
    for i in range(out.first_part, out.nparts):
        out.parts[i].at = out.parts[i].at - out.sent
    out.sent = 0


def spelled_double(double value):
    """The text that a double is serialised with; for tests."""
    cdef uint8_t text[40]
    return (<char*>text)[: spell_double(text, value)]


def show_double(double value):
    """The text that a double is replied with; for tests, which hold it against `commands.args.format_float`."""
    cdef uint8_t text[40]
    return (<char*>text)[: format_double(text, value)]
