"""The bits of the gate words: what may stand between a command and its twin.

A connection has a word and the engine has one; the numbering is shared. While both are 0 commands run without a look
at any of this.
"""

from typing import Final

GATE_AUTH: Final = 1
GATE_REPLY: Final = 2
GATE_SUBSCRIBED: Final = 4
GATE_MULTI: Final = 8
GATE_NO_TOUCH: Final = 16
GATE_TRACKING: Final = 32
GATE_ACL: Final = 64
GATE_PAUSED: Final = 1 << 8
GATE_LOADING: Final = 1 << 9
GATE_READONLY: Final = 1 << 10
GATE_OOM: Final = 1 << 11
GATE_MONITOR: Final = 1 << 12
GATE_SLOWLOG: Final = 1 << 13
GATE_JOURNAL: Final = 1 << 14
GATE_LATENCY: Final = 1 << 15
GATE_BUSY: Final = 1 << 16
