"""The catalogue of blocks in PostgreSQL, and blocks in it that have grown cold."""
