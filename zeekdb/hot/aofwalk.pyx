"""An append-only file read command by command, with no engine behind it: for tools.

What servers write is held to the letter here: arrays of bulk strings, MULTI and EXEC in pairs, annotations that begin
with #. A number that no server writes is damage; a command that goes on behind the end is a torn one.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp

cdef enum:
    WORDS_MAX = 1 << 20      # of a command
    DIGITS_MAX = 11          # of a length
    LINE_MAX = 1 << 12       # bytes of an annotation
    NAME_MAX = 64            # bytes of a command's name

cdef uint64_t WORD_MAX = <uint64_t>1 << 32  # bytes of a word

cdef enum Step:
    GOOD
    SHORT                    # the data end first
    WRONG


cdef class AofWalk:
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef readonly size_t size
    cdef readonly size_t at
    cdef readonly size_t whole
    cdef readonly size_t group
    cdef readonly uint64_t commands
    cdef readonly uint64_t transactions
    cdef readonly uint64_t annotations
    cdef readonly int64_t first_s
    cdef readonly int64_t last_s
    cdef readonly size_t untimed
    cdef readonly bint open
    cdef readonly uint64_t db_max
    cdef readonly dict names
    cdef readonly str verdict

    def __cinit__(self, data not None, size_t at=0):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.p, self.size = <const uint8_t*>self.view.buf, <size_t>self.view.len
        if at > self.size:
            at = self.size
        self.at = self.whole = self.group = at
        self.first_s = self.last_s = -1
        self.names = {}
        self.verdict = ""

    def __dealloc__(self):
        self.close()

    def close(self):
        if self.p != NULL:
            self.p = NULL
            PyBuffer_Release(&self.view)
            if not self.verdict:
                self.verdict = "closed"

    cdef Step number(self, size_t* at, uint8_t mark, uint64_t most, uint64_t* n) noexcept:
        """`mark`, digits, CR LF."""
        cdef size_t i = at[0], digits = 0
        cdef uint64_t value = 0
        if i >= self.size:
            return SHORT
        if self.p[i] != mark:
            return WRONG
        i += 1
        while i < self.size and b"0" <= self.p[i] <= b"9":
            value = value * 10 + (self.p[i] - <uint8_t>b"0")
            digits += 1
            i += 1
            if digits > DIGITS_MAX:
                return WRONG
        if i >= self.size:
            return SHORT
        if not digits or value > most or self.p[i] != b"\r":
            return WRONG
        if i + 1 >= self.size:
            return SHORT
        if self.p[i + 1] != b"\n":
            return WRONG
        n[0] = value
        at[0] = i + 2
        return GOOD

    cdef Step word(self, size_t* at, size_t* begin, size_t* n) noexcept:
        cdef uint64_t length
        cdef Step step = self.number(at, b"$", WORD_MAX, &length)
        if step != GOOD:
            return step
        if self.size - at[0] < length + 2:
            # what there is of the CR LF must be one
            if self.size - at[0] == length + 1 and self.p[self.size - 1] != b"\r":
                return WRONG
            return SHORT
        begin[0], n[0] = at[0], length
        at[0] += length
        if self.p[at[0]] != b"\r" or self.p[at[0] + 1] != b"\n":
            return WRONG
        at[0] += 2
        return GOOD

    cdef stop(self, Step step):
        """Where reading ends for good."""
        self.verdict = "torn" if step == SHORT else "it does not follow the protocol"
        if self.open:
            self.whole = self.group

    cdef bint annotation(self, int64_t until_s) except -1:
        """False: it is the end."""
        cdef size_t left = min(self.size - self.at, <size_t>LINE_MAX)
        cdef const uint8_t* end = <const uint8_t*>memchr(self.p + self.at, b"\n", left)
        cdef size_t i
        cdef int64_t seconds = 0
        if end == NULL:
            self.stop(WRONG if left == LINE_MAX else SHORT)
            return False
        if memchr(self.p + self.at, 0, end - (self.p + self.at)) != NULL:  # a hole begins in it
            self.stop(WRONG)
            return False
        i = self.at + 4
        if end - (self.p + self.at) > 4 and memcmp(self.p + self.at, b"#TS:", 4) == 0:
            while b"0" <= self.p[i] <= b"9" and seconds < 1 << 40:
                seconds = seconds * 10 + (self.p[i] - <uint8_t>b"0")
                i += 1
            if 0 <= until_s < seconds:
                self.verdict = "later"
                if self.open:
                    self.whole = self.group
                return False
            if self.first_s < 0:
                self.first_s = seconds
                self.untimed = self.at
            self.last_s = max(self.last_s, seconds)
        self.annotations += 1
        self.at = end - self.p + 1
        if not self.open:
            self.whole = self.at
        return True

    def run(self, uint64_t commands_max=0, uint64_t bytes_max=0, int64_t until_s=-1):
        cdef uint64_t words, done = 0, i, db
        cdef size_t at, begin, n, first, length, start = self.at
        cdef Step step
        cdef bint special
        if self.verdict:
            return 0
        while True:
            if self.at == self.size:
                self.verdict = "torn" if self.open else "whole"
                if self.open:
                    self.whole = self.group
                return done
            if done and (commands_max and done >= commands_max or bytes_max and self.at - start >= bytes_max):
                return done
            if self.p[self.at] == b"#":
                if not self.annotation(until_s):
                    return done
                continue
            at = self.at
            step = self.number(&at, b"*", WORDS_MAX, &words)
            if step == GOOD:
                step = self.word(&at, &first, &length) if words else WRONG
            if step == GOOD and length > NAME_MAX:
                step = WRONG
            if step != GOOD:
                self.stop(step)
                return done
            begin = n = 0
            for i in range(words - 1):
                step = self.word(&at, &begin, &n)
                if step != GOOD:
                    self.stop(step)
                    return done
            name = PyBytes_FromStringAndSize(<const char*>self.p + first, length).upper()
            special = name == b"SELECT" or name == b"MULTI" or name == b"EXEC" or name == b"DISCARD"
            if special:
                if name == b"SELECT":
                    text = PyBytes_FromStringAndSize(<const char*>self.p + begin, n)
                    if words != 2 or not text.isdigit() or n > DIGITS_MAX:
                        self.stop(WRONG)
                        return done
                    db = int(text)
                    self.db_max = max(self.db_max, db)
                elif name == b"MULTI":
                    if self.open:
                        self.verdict, self.whole = "MULTI inside MULTI", self.group
                        return done
                    self.open, self.group = True, self.at
                elif not self.open:
                    self.verdict = name.decode() + " without MULTI"
                    return done
                else:
                    self.open = False
                    self.transactions += 1
            self.names[name] = self.names.get(name, 0) + 1
            self.commands += 1
            done += 1
            self.at = at
            if not self.open:
                self.whole = at
