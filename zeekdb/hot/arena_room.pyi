def make_room(size: int, move_bytes_max: int) -> bool:
    """Whether a block of `size` bytes has room now, after at most so many bytes were moved.

    Fixed blocks stay, and those that somebody holds as a buffer.
    """

def window(size: int, prices: dict[int, int] | None = None) -> list[int]:
    """Offsets of the blocks, the cheapest run there is, whose release makes room for one of `size` bytes; else empty.

    `prices`: what each costs, by offset; 2**64 - 1 for one that must stay. Without, each costs its bytes.
    """
