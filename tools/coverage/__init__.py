"""Which architectures are taken, and how much of each moves: ``python -m tools.coverage``."""
