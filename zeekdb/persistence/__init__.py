"""Values as bytes that outlive the process, in Redis's formats."""

from zeekdb.persistence import types  # every value can be read and written by whoever imports anything from here

__all__ = ["types"]
