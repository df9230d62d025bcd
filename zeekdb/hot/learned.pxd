# The policy that learns from the accesses which keys will be used again. See learned.pyx.
from zeekdb.hot.recency cimport Policy

cdef Policy LEARNED_POLICY
