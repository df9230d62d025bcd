"""Directives, their values and redis.conf."""
