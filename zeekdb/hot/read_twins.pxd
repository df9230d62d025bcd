# More twins, of commands that only read. See read_twins.pyx.
from zeekdb.hot.wire cimport Twin

cdef Twin find(bytes name)
