"""Degenerate tensors and attributes out of range for every lowering and rule: `python -m tools.sweep`."""
