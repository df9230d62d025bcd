"""Embeddings of contexts, and where they are kept: see `store`."""
