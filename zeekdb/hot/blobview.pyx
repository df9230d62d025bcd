"""A blob as Python sees it: the bytes stay where they are, and stay as long as the view."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from zeekdb.hot.memory cimport blob_new, blob_release, blob_retain


cdef class BlobView:
    """A reference to a large value's bytes."""

    def __dealloc__(self):
        if self.blob != NULL:
            blob_release(self.blob)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE and not self.writable:
            raise BufferError("a block never changes")
        PyBuffer_FillInfo(buffer, self, self.blob.data, self.size, not self.writable, flags)

    def __repr__(self):
        return f"<{self.size} bytes>"


cdef BlobView view_blob(Blob* blob, bint writable=False):
    cdef BlobView view = BlobView.__new__(BlobView)
    view.blob = blob_retain(blob)
    view.size = <Py_ssize_t>blob.size
    view.writable = writable
    return view


def new_blob(size_t size) -> BlobView:
    """A writable blob outside the arena, its bytes undefined."""
    cdef Blob* blob = blob_new(size)
    cdef BlobView view
    blob.size = size
    view = view_blob(blob, True)
    blob_release(blob)
    return view


cdef class Spans:
    """A reply: one bulk string of several parts of blobs."""

    def __init__(self, list parts not None):
        self.parts = parts
