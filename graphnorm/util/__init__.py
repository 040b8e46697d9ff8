"""General utilities: atomic files, threads, missing packages, limits, printable text."""
