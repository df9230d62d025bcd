"""Servers are killed while they work, and what they had acknowledged is looked for."""
