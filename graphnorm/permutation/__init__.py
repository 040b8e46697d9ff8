"""Permutations of hidden channels: which a network allows, which one leads from A to B, a canonical order."""
