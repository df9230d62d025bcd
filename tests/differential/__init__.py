"""ZeekDB and redis-server side by side."""
