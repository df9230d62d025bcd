"""Everything that checks ZeekDB; `tests.support` is what its parts share."""
