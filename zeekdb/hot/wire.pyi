def show_double(value: float) -> bytes:
    """The text that a double is replied with; for tests, which hold it against `commands.args.format_float`."""

def spelled_double(value: float) -> bytes:
    """The text that a double is serialised with; for tests."""
