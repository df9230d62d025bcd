def seed(value: int) -> None:
    """Make random members, fields and pops repeatable, for tests."""
