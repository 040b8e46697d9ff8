"""Torch models as something to measure: runs, float64 copies, noise, errors."""
