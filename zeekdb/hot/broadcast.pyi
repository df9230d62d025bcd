from collections.abc import Sequence

from zeekdb.hot.connection import Connection

def broadcast(receivers: Sequence[Connection], resp2: bytes, resp3: bytes) -> None:
    """Gives every receiver the message in its protocol; what one round brings leaves in one piece."""
