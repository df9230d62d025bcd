"""The parser's C functions have no Python door; see engine."""
