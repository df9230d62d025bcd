"""The wire's C functions have no Python door; see engine."""
