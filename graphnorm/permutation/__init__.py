"""Permutations of hidden channels: which a network allows, which one maps A to B, a canonical order."""
