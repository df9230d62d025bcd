"""A client for what ZeekDB has beyond Redis. It needs nothing of the server: `zeekdb.client` and `zeekdb.errors` alone.

`Region` and `AsyncRegion` move KV-cache blocks between the caller's memory and the server's.
"""

from zeekdb.client.asynchronous import AsyncRegion
from zeekdb.client.calls import DROPPED, SHARED, STORED
from zeekdb.client.leases import Lease, Lookup, View, Views
from zeekdb.client.region import Region
from zeekdb.errors import CommandError, Unavailable

__all__ = [
    "DROPPED",
    "SHARED",
    "STORED",
    "AsyncRegion",
    "CommandError",
    "Lease",
    "Lookup",
    "Region",
    "Unavailable",
    "View",
    "Views",
]
