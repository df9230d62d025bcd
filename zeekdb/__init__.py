"""ZeekDB: a Redis-compatible cache server for machines that serve language models."""

__version__ = "0.1.0"
