"""A study: what is trained and evaluated, as data. Loading one imports no torch, so the Snakefile can do it at once."""
