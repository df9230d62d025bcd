def make_room(size: int, move_bytes_max: int) -> bool:
    """Whether a block of `size` bytes has room now, after at most so many bytes were moved.

    Fixed blocks stay, and those that somebody holds as a buffer.
    """
