"""PostgreSQL: the catalogue of blocks (what is where, versions, log, statistics) and the cold blocks themselves."""
