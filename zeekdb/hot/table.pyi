def seed_hash(a: int, b: int, c: int, d: int) -> None:
    """Fix the hash's seed: for tests that must repeat. Only while every table is empty."""
