"""From operators to equations: every tensor's log-scale, entry by entry, and what its rules say about it.

``propagate`` walks the graph and calls one rule of ``rules/`` per operator; ``constraints`` turns their
statements into linear equations and ``elimination`` solves them exactly.  Framework-free.
"""
