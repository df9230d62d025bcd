"""What is known of scripts and function libraries; the interpreter is hot/lua.pyx, running them server/scripts.py."""
