"""For the hot room only: nothing here is called from Python. Importing it finds Lua, or fails with ImportError."""
