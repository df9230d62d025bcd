"""Scripts and function libraries: what is known of them. The interpreter is hot/lua.pyx, running them server/scripts.py."""
