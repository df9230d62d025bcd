"""Tensor blocks: their layouts, codecs, and slots in the memory of a GPU."""
