def make_room(size: int, move_bytes_max: int) -> bool:
    """Whether a block of `size` bytes has room now, after at most so many bytes were moved.

    Fixed blocks stay, and those that somebody holds as a buffer.
    """

def window(size: int) -> list[int]:
    """Offsets of the blocks, the fewest bytes there are, whose release makes room for one of `size` bytes; empty when
    there is no such run.
    """
