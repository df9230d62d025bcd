"""The tree's C functions have no Python door; see zsets."""
