"""The data types' doors. The structures themselves live in the hot room, where the twins reach them without Python."""

from zeekdb.hot.hashes import Hash
from zeekdb.hot.lists import List
from zeekdb.hot.sets import Set
from zeekdb.hot.streams import Stream
from zeekdb.hot.zsets import ZSet

__all__ = ["Hash", "List", "Set", "Stream", "ZSet"]
