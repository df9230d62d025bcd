# The policies that go by the order in which keys came. See queues.pyx.
from zeekdb.hot.recency cimport Policy

cdef Policy FIFO_POLICY, S3FIFO_POLICY
