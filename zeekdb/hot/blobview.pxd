# A blob as Python sees it. See blobview.pyx.
from zeekdb.hot.memory cimport Blob

cdef class BlobView:
    cdef Blob* blob
    cdef Py_ssize_t size
    cdef bint writable

cdef BlobView view_blob(Blob* blob, bint writable=*)  # keeps a reference of its own

# A bulk string put together from parts of blobs.
cdef class Spans:
    cdef readonly list parts     # [(BlobView, begin, end), …]
