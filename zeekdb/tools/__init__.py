"""Tools beside the server: check and repair files, import data, backups. See docs/OPERATIONS.md."""
