# The hot commands without Python. See twins.pyx.
from zeekdb.hot.wire cimport Twin

cdef Twin find(bytes name)
