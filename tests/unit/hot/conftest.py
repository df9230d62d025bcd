"""The hash of the tables is fixed here, so that a failing generated test fails again."""

from __future__ import annotations

from zeekdb.hot import table

table.seed_hash(0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x2545F4914F6CDD1D)
